// Elements from data. Whatever is said is text: nothing here takes HTML.

export function h(name, attributes = {}, ...children) {
  const made = SVG.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat(9).filter((child) => child != null && child !== false));
  return made;
}
const SVG = new Set(["svg", "path"]);

// Put `children` in the place of what is in `element`; where that is the same already, it stays, so
// that a table that is read, selected or tabbed through does not jump.
export function fill(element, ...children) {
  const wanted = h("div", {}, ...children);
  morph(element, wanted);
}

function morph(old, now) {
  const before = [...old.childNodes], after = [...now.childNodes];
  after.forEach((node, n) => {
    const there = before[n];
    if (!there) old.append(node);
    else if (there.nodeType !== node.nodeType || there.nodeName !== node.nodeName || keyOf(there) !== keyOf(node)) there.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (there.data !== node.data) there.data = node.data; }
    else if (!there.hasAttribute("data-own")) { attributes(there, node); morph(there, node); }
  });
  before.slice(after.length).forEach((node) => node.remove());
}

const keyOf = (node) => node.dataset?.key;

function attributes(old, now) {
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

// A table: `columns` of [heading, cell of a row, options].
export function table(label, columns, rows, { key, sorted, onsort } = {}) {
  const heading = ([name, , { sort, number } = {}]) => {
    const way = sort && sorted?.by === sort ? (sorted.descending ? "descending" : "ascending") : null;
    const mark = way ? (way === "ascending" ? " ▲" : " ▼") : "";
    const said = sort ? h("button", { type: "button", "data-sort": sort }, name + mark) : name;
    return h("th", { scope: "col", class: number && "number", "aria-sort": way }, said);
  };
  const cell = (row) => ([, value, { number } = {}]) => h("td", { class: number && "number" }, value(row));
  const sort = (event) => event.target.dataset?.sort && onsort?.(event.target.dataset.sort);
  return h("div", { class: "wide", role: "region", "aria-label": label, tabindex: "0", onclick: sort, "data-key": label },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map(heading))),
      h("tbody", {}, rows.map((row) => h("tr", { "data-key": key?.(row) }, columns.map(cell(row)))))));
}

// Put `text` where it can be pasted from; where that is not allowed, the button says so.
export async function copied(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch { button.textContent = "the browser does not allow it"; }
}

export function copier(text) {
  const button = h("button", { type: "button", class: "small" }, "copy");
  button.addEventListener("click", () => copied(button, text));
  return button;
}

export function spark(values) {
  if (values.length < 2) return "";
  const low = Math.min(...values), high = Math.max(...values), tall = high - low || 1;
  const points = values.map((value, n) => `${(120 * n / (values.length - 1)).toFixed(1)},${(23 - 22 * (value - low) / tall).toFixed(1)}`);
  return h("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", role: "img", "aria-label": `from ${say(values[0])} to ${say(values.at(-1))}` },
    h("path", { d: `M${points.join("L")}` }));
}

const LOOKS = { running: "busy", done: "good", finished: "good", failed: "bad", unreadable: "bad", stopped: "unclear", killed: "unclear", paused: "unclear", retrying: "unclear", interrupted: "unclear" };
export const stateOf = (state) => h("span", { class: `state ${LOOKS[state] ?? "soft"}` }, state);

export function say(value) {
  if (value == null) return "";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(+value.toPrecision(4));
  if (typeof value === "object") return value._name ? `${value._name} ${JSON.stringify({ ...value, _name: undefined })}`.replace(" {}", "") : JSON.stringify(value);
  return String(value);
}

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 90) return `${+seconds.toPrecision(3)} s`;
  const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = count < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(count) / 3));
  return `${+(count / 1000 ** power).toPrecision(4)} ${units[power]}`;
}

export function ago(iso) {
  if (!iso) return "";
  const seconds = (Date.now() - new Date(iso)) / 1000;
  const [size, unit] = [[86400, "days"], [3600, "hours"], [60, "minutes"], [1, "seconds"]].find(([size]) => seconds >= 2 * size) ?? [1, "seconds"];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit} ago`;
}

export const when = (iso) => (iso ? new Date(iso).toLocaleString() : "");
