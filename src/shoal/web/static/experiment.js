// One experiment: its tabs.

import { buttons, confirmed } from "./actions.js";
import { ask, soon } from "./ask.js";
import { draw, lazily, loaded } from "./charts.js";
import { bytes, copied, copier, duration, fill, h, say, spark, stateOf, table, when } from "./dom.js";
import { follow } from "./follow.js";

const TABS = ["overview", "lineage", "members", "trials", "copies", "checkpoints", "log", "settings"];
const PICTURES = { overview: ["population", "schedule"], lineage: ["lineage", "survival", "exploits", "diversity", "parallel", "timeline"] };
const REST = 60; // times as long as a picture takes passes before the next

export function experiment(main, at) {
  const base = `experiments/${encodeURIComponent(at.id)}`;
  const head = h("div"), actions = h("div", { class: "tools", role: "group", "aria-label": "actions" }), warnings = h("div"), tabs = h("nav", { class: "tabs", "aria-label": "views" }), body = h("div");
  const charts = new Map();
  let begun = false, ended = false, followed = null, now = null;
  soon(base);
  if (PICTURES[at.tab]) {
    PICTURES[at.tab].slice(0, 2).forEach((name) => soon(`${base}/plots/${name}`));
    loaded()?.catch(() => {}); // it is told to whoever draws
  }

  function link(tab, name, query) {
    const more = query && Object.keys(query).length ? `?${new URLSearchParams(query)}` : "";
    return h("a", { href: `#/${encodeURIComponent(at.id)}/${tab}${more}` }, name);
  }
  const trialLink = (id) => (id == null ? "" : link(`trial/${id}`, String(id)));

  function go(query) {
    const clean = Object.fromEntries(Object.entries({ ...at.query, ...query }).filter(([, value]) => value !== ""));
    location.hash = `#/${encodeURIComponent(at.id)}/${at.tab}?${new URLSearchParams(clean)}`;
  }

  function frame() {
    const shown = at.tab === "trial" ? "trials" : at.tab;
    fill(tabs, TABS.map((tab) => { const one = link(tab, tab); if (tab === shown) one.setAttribute("aria-current", "page"); return one; }));
    fill(head, h("h1", {}, now.name, " ", stateOf(now.state)),
      now.reason && h("p", { class: "soft" }, now.state === "running" ? `waiting for ${now.reason}` : now.reason),
      now.trials.total && h("p", {}, h("progress", { max: now.trials.total, value: now.trials.finished, "aria-label": "trials" }), ` ${now.trials.finished} of ${now.trials.total} trials`));
    fill(actions, buttons(now));
    fill(warnings, now.health.length > 0 && h("section", { class: "warnings", "aria-label": "health" }, h("strong", {}, "To be looked at"), h("ul", {}, now.health.map((text) => h("li", {}, text)))));
    document.title = `${now.name}: ${now.trials.finished} trials`;
    document.getElementById("where").textContent = `${now.name} ${now.id}`;
  }

  function pictures() {
    for (const name of PICTURES[at.tab]) {
      if (charts.has(name)) continue;
      const chart = h("div", { class: "chart", "data-picture": name, "aria-busy": "true" });
      charts.set(name, { chart, next: 0, due: null });
      body.append(h("figure", {}, chart, h("figcaption", {})));
    }
    return lazily([...charts.values()].map((one) => one.chart), (chart) => picture(charts.get(chart.dataset.picture)));
  }

  // Draw again, as soon as that is not too often: of a large run, what it costs the server decides.
  async function picture(one) {
    one.seen = true;
    const wait = one.next - Date.now();
    if (wait > 0) { one.due ??= setTimeout(() => { one.due = null; if (!ended) picture(one); }, wait); return; }
    one.next = Infinity;
    const began = Date.now();
    try {
      const figure = await ask(`${base}/plots/${one.chart.dataset.picture}`);
      if (ended || one.figure === figure) return;
      one.figure = figure;
      await draw(one.chart, figure);
      one.chart.nextSibling.textContent = figure.layout.meta?.caption ?? "";
    } catch (error) {
      if (!ended && !one.figure) one.chart.replaceChildren(problem(error));
      else if (!ended) console.warn(error);
    } finally { one.chart.removeAttribute("aria-busy"); one.next = Date.now() + Math.max(500, REST * (Date.now() - began)); }
  }

  const show = {
    async overview() {
      fill(body.querySelector(".said") ?? body.appendChild(h("div", { class: "said" })),
        headline(),
        now.sentences.map((sentence) => h("p", {}, sentence)),
        h("dl", { class: "facts" }, fact("members", now.population), fact("running", now.trials.running), fact("at a time", now.workers), fact("folder", now.folder), now.best?.checkpoint && factOf("best checkpoint", [now.best.checkpoint, " ", copier(now.best.checkpoint)])),
        h("p", {}, schedule()),
        h("p", {}, h("a", { href: `api/${base}/report`, download: true }, "report"), " · ", h("a", { href: `api/${base}/export.csv`, download: true }, "trials as CSV"), " · ", h("a", { href: `api/${base}/export.json`, download: true }, "as JSON")));
    },
    async lineage() {},
    async members() {
      fill(body, table("members", [
        ["member", (one) => link("trials", String(one.member), { member: one.member }), { number: true }],
        ["state", (one) => [stateOf(one.state), one.waits && ` ${one.waits}`]],
        ["trial", (one) => trialLink(one.trial), { number: true }],
        ["step", (one) => say(one.step), { number: true }],
        ["behind", (one) => say(one.lag || null), { number: true }],
        ["score", (one) => say(one.metric), { number: true }],
        ["best", (one) => (one.best != null && one.best === now.best?.metric ? h("strong", { class: "good" }, `★ ${say(one.best)}`) : say(one.best)), { number: true }],
        ["latest", (one) => spark(one.spark)],
      ], await ask(`${base}/members`), { key: (one) => one.member }));
    },
    async trials() {
      const { state = "", member = "", copied = "", sort = "id", order = "asc", page = "0" } = at.query;
      const asked = Object.fromEntries(Object.entries({ state, member, copied, sort, order, page }).filter(([, value]) => value !== ""));
      const found = await ask(`${base}/trials?${new URLSearchParams(asked)}`);
      const last = Math.max(0, Math.ceil(found.total / found.size) - 1);
      const turn = (to, name) => h("button", { type: "button", "data-page": to, disabled: to < 0 || to > last }, name);
      fill(body,
        h("div", { class: "tools" },
          choice("state", state, ["", "running", "finished", "failed", "lost"]), choice("copied", copied, ["", "true", "false"]),
          h("label", {}, "member ", h("input", { type: "number", min: 0, max: now.population - 1, name: "member", value: member, "data-own": true }))),
        table("trials", trialColumns(), found.trials, { key: (one) => one.id, sorted: { by: sort, descending: order === "desc" }, onsort: null }),
        h("div", { class: "tools" }, turn(+page - 1, "Before"), h("span", {}, `page ${+page + 1} of ${last + 1}, ${found.total} trials`), turn(+page + 1, "After")));
    },
    async trial() {
      const id = at.rest[0], one = await ask(`${base}/trials/${id}`);
      const place = body.querySelector(".trial") ?? body.appendChild(h("div", { class: "trial" }));
      fill(place, h("h2", {}, `Trial ${one.id} `, stateOf(one.state)),
        h("dl", { class: "facts" }, fact("member", one.member), fact("step", one.step), fact("metric", say(one.metric)),
          factOf("started from", one.parent == null ? "nothing: fresh weights" : [trialLink(one.parent), one.copied != null && ` of member ${one.copied}`]),
          factOf("went on in", one.children.map((child) => [trialLink(child.id), " "])), fact("attempt", one.attempt), fact("started", when(one.started)), fact("ended", when(one.ended)), fact("checkpoint", one.checkpoint), fact("error", one.error),
          ...Object.entries(one.hparams).map(([name, value]) => fact(name, say(value))), ...Object.entries(one.metrics).map(([name, value]) => fact(name, say(value)))),
        h("p", {}, link("why", "Why was this decided?", { member: one.member, step: one.step })),
        curve(one));
      followed ??= follow(body.appendChild(h("div", {})), `${base}/trials/${id}`);
      followed.running = !["finished", "failed"].includes(one.state) && now.state === "running";
    },
    async copies() {
      const page = +(at.query.page ?? 0), found = await ask(`${base}/exploits?page=${page}`);
      const last = Math.max(0, Math.ceil(found.total / found.size) - 1);
      const turn = (to, name) => h("button", { type: "button", "data-page": to, disabled: to < 0 || to > last }, name);
      fill(body, found.total === 0 ? h("p", {}, "Nobody has copied anybody yet.") : table("copies", [
        ["step", (one) => say(one.step), { number: true }],
        ["members", (one) => `${one.donor.member} → ${one.member}`],
        ["trial", (one) => trialLink(one.trial), { number: true }],
        ["before", (one) => say(one.before), { number: true }],
        ["donor", (one) => say(one.copied), { number: true }],
        ["after", (one) => say(one.after), { number: true }],
        ["gain", (one) => h("span", { class: one.gain > 0 ? "good" : "bad" }, one.failed ? "failed" : say(one.gain)), { number: true }],
        ["explored", (one) => one.explored],
        ["why", (one) => link("why", "why?", { member: one.member, step: one.step })],
      ], found.exploits, { key: (one) => one.trial }), last > 0 && h("div", { class: "tools" }, turn(page - 1, "Later"), `page ${page + 1} of ${last + 1}`, turn(page + 1, "Earlier")));
    },
    async why() {
      const { member = "", step = "" } = at.query, why = await ask(`${base}/explain?member=${member}&step=${step}`);
      fill(body, h("h2", {}, `Why member ${member} ${why.what} at step ${step}`),
        h("dl", { class: "facts" }, fact("because", why.because), factOf("trial", trialLink(why.trial)), fact("donor", why.donor == null ? "" : `member ${why.donor}`),
          ...Object.entries(why.changes).map(([name, { before, after }]) => fact(`explored ${name}`, `${say(before)} → ${say(after)}`))),
        table("compared", [["rank", (one) => say(one.rank), { number: true }], ["member", (one) => say(one.member), { number: true }], ["step", (one) => say(one.step), { number: true }], ["metric", (one) => say(one.metric), { number: true }], ["trial", (one) => trialLink(one.trial), { number: true }], ["role", (one) => (one.member === why.member ? "this one" : one.member === why.donor ? "donor" : "")]], why.cohort));
    },
    async checkpoints() {
      const found = await ask(`${base}/checkpoints`);
      fill(body, h("p", {}, `${bytes(found.bytes)} in ${found.root}; kept: ${found.keep}.`),
        found.by_member.length > 1 && h("p", { class: "soft" }, "By member: ", found.by_member.map((one) => `${one.member}: ${bytes(one.bytes)}`).join(", "), "."),
        found.checkpoints.length === 0 ? h("p", {}, "Nothing is saved at the moment.") : table("checkpoints", [
          ["member", (one) => say(one.member), { number: true }], ["step", (one) => say(one.step), { number: true }], ["trial", (one) => trialLink(one.trial), { number: true }],
          ["size", (one) => bytes(one.bytes), { number: true }], ["number", (one) => say(one.files), { number: true }], ["kept because", (one) => one.why],
          ["files", (one) => h("a", { href: `api/${base}/checkpoints/${one.member}/${one.step}`, download: true }, "download")],
        ], found.checkpoints, { key: (one) => `${one.member}/${one.step}` }));
    },
    async log() {
      const lines = await ask(`${base}/log`);
      fill(body, lines.length === 0 ? h("p", {}, "Nothing was said.") : h("pre", { class: "log", tabindex: "0" }, lines.map((line) => h("div", { class: { warning: "unclear", error: "bad" }[line.level] }, `${new Date(1000 * line.at).toLocaleTimeString()}  ${line.level.padEnd(7)}  ${line.text}`))));
    },
    async settings() {
      fill(body, h("pre", { tabindex: "0" }, JSON.stringify(await ask(`${base}/config`), null, 2)));
    },
  };

  // What a researcher who has ten seconds wants to know.
  function headline() {
    const done = now.trials.finished + now.trials.failed, left = now.trials.total && now.state === "running" && done ? now.seconds / done * (now.trials.total - done) : null;
    const big = (name, value, looks) => h("div", { class: looks }, h("dt", {}, name), h("dd", {}, value));
    return h("dl", { class: "headline", "data-key": "headline" },
      big(now.metric === "default" ? "best" : `best ${now.metric}`, now.best ? say(now.best.metric) : "none yet: it waits for the first trial to finish", now.best ? "good" : "soft"),
      big("steps ended", now.steps ? `${now.step} of ${now.steps}` : String(now.step)),
      left == null ? big("time", duration(now.seconds)) : big("time left, about", duration(left)),
      big("failed", now.trials.failed ? `${now.trials.failed}: ${now.failures}` : "none", now.trials.failed ? "bad" : "soft"),
      now.control && big(`gained over ${now.control.members} that never copy`, say(now.control.gain), now.control.gain > 0 ? "good" : "unclear"));
  }

  function schedule() {
    const button = h("button", { type: "button", "data-key": "schedule" }, "copy the schedule");
    button.addEventListener("click", async () => copied(button, JSON.stringify(await ask(`${base}/schedule`), null, 1)));
    return now.best && button;
  }

  function trialColumns() {
    const number = { number: true };
    return [
      ["trial", (one) => trialLink(one.id), { sort: "id", number: true }], ["member", (one) => say(one.member), { sort: "member", number: true }], ["step", (one) => say(one.step), { sort: "step", number: true }],
      ["state", (one) => stateOf(one.state)], ["metric", (one) => say(one.metric), { sort: "metric", number: true }],
      ["took", (one) => one.ended && duration((new Date(one.ended) - new Date(one.started)) / 1000), { sort: "took", number: true }],
      ["copied", (one) => one.copied != null && `← ${one.copied}`],
      ...now.hparams.map((name) => [name, (one) => say(one.hparams[name]), number]),
      ["error", (one) => one.error?.split("\n")[0]],
    ];
  }

  actions.addEventListener("click", ({ target }) => target.dataset.act && confirmed(target.dataset.act, base, now));
  body.addEventListener("click", (event) => {
    const { sort, page } = event.target.dataset ?? {};
    if (page) go({ page });
    if (sort) go({ sort, order: at.query.sort === sort && at.query.order !== "desc" ? "desc" : "asc", page: "" });
  });
  body.addEventListener("change", (event) => event.target.name && go({ [event.target.name]: event.target.value, page: "" }));

  let wrong = null, unwatch = () => {}, busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      try { now = await ask(base); }
      catch (error) {
        if (!begun || ended) throw error;
        wrong?.remove();
        body.append(wrong = problem(error)); // of a server that is away; it is asked again
        return;
      }
      if (ended) return;
      if (!head.isConnected) main.replaceChildren(head, actions, warnings, tabs, body);
      begun = true;
      frame();
      wrong?.remove();
      wrong = null;
      const here = at;
      try { await (show[at.tab] ?? show.overview)(); }
      catch (error) { // of this view: the others are there all the same
        if (!ended && here === at) { clear(); body.append(wrong = problem(error)); }
      }
      if (PICTURES[at.tab] && !charts.size) unwatch = pictures();
      charts.forEach((one) => one.seen && picture(one));
      chosen();
    } finally { busy = false; }
    if (again) { again = false; await refresh(); }
  }

  // What is chosen follows the address, also on Back; what is being typed is left alone.
  function chosen() {
    for (const field of body.querySelectorAll("[data-own]")) if (field !== document.activeElement) field.value = at.query[field.name] ?? "";
  }

  function clear() {
    unwatch(); unwatch = () => {};
    followed?.stop(); followed = null;
    charts.forEach((one) => { clearTimeout(one.due); window.Plotly?.purge(one.chart); });
    charts.clear();
    body.replaceChildren();
  }

  return {
    refresh,
    same: (next) => next.id === at.id,
    async move(next) {
      const stays = next.tab === at.tab && next.rest.join() === at.rest.join();
      at = next;
      if (!stays) { clear(); if (begun) frame(); }
      await refresh();
    },
    redraw() { charts.forEach((one) => one.figure && draw(one.chart, one.figure)); },
    leave() { ended = true; clear(); },
  };
}

const problem = (error) => h("div", { class: "error", role: "alert" }, h("p", {}, error.message));
const fact = (name, value) => value != null && value !== "" && [h("dt", {}, name), h("dd", {}, String(value))];
const factOf = (name, children) => [h("dt", {}, name), h("dd", {}, children)];
const choice = (name, chosen, options) => h("label", {}, `${name} `, h("select", { name, "data-own": true }, options.map((option) => h("option", { value: option, selected: option === chosen }, option || "any"))));

function curve(one) {
  const values = one.intermediate.map((value) => (typeof value === "object" && value ? value.default : value)).filter((value) => typeof value === "number");
  if (values.length < 2) return null;
  return h("figure", {}, spark(values), h("figcaption", {}, `${values.length} intermediate results, from ${say(values[0])} to ${say(values.at(-1))}`));
}
