// The page: what the address says is shown, and shown again when something has happened.

import { listen } from "./ask.js";
import { fill, h } from "./dom.js";
import { list } from "./list.js";
import { experiment } from "./experiment.js";

const REST_MS = 700;
const main = document.getElementById("main");
let shown = { leave() {} };

// #/ is the list, #/ID/TAB?key=value an experiment
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [id, ...rest] = path.split("/").map(plainly);
  return { id, tab: rest[0] || "overview", rest: rest.slice(1), query: Object.fromEntries(new URLSearchParams(query)) };
}

const scrolled = new Map(); // by address: where it was left
let turning = false, back = false;
history.scrollRestoration = "manual"; // what there is to be scrolled comes later
addEventListener("popstate", () => { back = true; turning = true; });
addEventListener("scroll", () => turning || scrolled.set(location.hash, scrollY), { passive: true });

async function show() {
  const here = location.hash, to = back ? scrolled.get(here) : undefined; // a link leads to the top
  turning = true;
  back = false;
  await shows();
  if (here !== location.hash) return;
  if (to !== undefined) scrollTo(0, to);
  turning = false;
}

// An address that was typed may be none.
function plainly(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

async function shows() {
  const at = place();
  if (shown.same?.(at)) return shown.move(at).catch(failed);
  shown.leave();
  document.getElementById("told").textContent = "";
  fill(main, h("p", { class: "soft", "aria-busy": "true" }, "Loading …"));
  document.getElementById("where").textContent = "";
  const view = at.id ? experiment(main, at) : list(main, at);
  const again = rested(() => view.refresh().catch(failed));
  const channel = listen(at.id, again, (well) => { if (well && document.body.classList.contains("stale")) again(); connected(well); });
  shown = { ...view, leave: () => { channel.close(); view.leave?.(); } };
  await view.refresh().catch(failed);
}

// Of a run in which much happens, as much is shown as can be read: the run needs the processor more.
function rested(refresh) {
  let next = 0, due = null;
  return () => {
    const begin = () => { due = null; next = Date.now() + REST_MS; refresh(); };
    if (Date.now() >= next) begin();
    else due ??= setTimeout(begin, next - Date.now());
  };
}

function failed(error) {
  main.replaceChildren(h("div", { class: "error", role: "alert" }, h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "All experiments"))));
}

function connected(well) {
  document.body.classList.toggle("stale", !well);
  const link = document.getElementById("link");
  link.textContent = well ? "live" : "disconnected: trying again …";
  link.className = well ? "good" : "bad";
}

addEventListener("hashchange", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown.redraw?.());
show();
