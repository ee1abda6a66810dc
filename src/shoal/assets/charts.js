// Figures as plotly's Python side writes them, in the colours of the page that they are on.

const MODE = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d"] };

let loading = null;

// plotly.js, which a report has in it. It is large, and while it is read nothing else can be done: it
// is asked for where there are pictures, and last.
export function loaded() {
  if (window.Plotly) return null;
  return loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "static/plotly.js";
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => { loading = null; script.remove(); reject(new Error("plotly.js cannot be had")); });
    document.head.append(script);
  });
}

let before = Promise.resolve();

// Draw `figure` in `element`, or again with what has changed: zoom and hidden lines stay. One after
// the other, and what is drawn is seen before the next is.
export function draw(element, figure) {
  const mine = before.then(() => drawAtOnce(element, figure));
  before = mine.catch(() => {}).then(() => new Promise((resolve) => setTimeout(resolve, 16)));
  before.then(() => performance.mark(`seen ${element.dataset.picture}`));
  return mine;
}

export async function drawAtOnce(element, figure) {
  if (!window.Plotly) await loaded();
  const { data, layout } = themed(figure, element);
  layout.uirevision = "stays";
  element.setAttribute("role", "group"); // what plotly puts inside can be pressed
  element.setAttribute("aria-label", figure.layout.title?.text ?? "picture");
  await Plotly.react(element, data, layout, { ...MODE, displayModeBar: narrow(element) ? false : "hover" });
  if (data.some(isParallel)) brushable(element, figure.data);
}

const isParallel = (trace) => trace.meta === "parallel";

// Of parallel coordinates, let only those lines be seen that cross an axis inside a dragged box.
function brushable(element, traces) {
  const indices = traces.flatMap((trace, index) => (isParallel(trace) ? [index] : []));
  const lines = indices.map((index) => points(traces[index]));
  const show = (box) => {
    const inside = ({ x, y }) => x >= box.x[0] && x <= box.x[1] && y >= box.y[0] && y <= box.y[1];
    const wanted = new Set(box && lines.flat().filter(inside).map((point) => point.id));
    element.dataset.lines = box ? wanted.size : "";
    const seen = (line) => line.map(({ y, id }) => (!box || wanted.has(id) ? y : null));
    Plotly.restyle(element, { y: lines.map(seen) }, indices);
  };
  element.removeAllListeners("plotly_selected");
  element.removeAllListeners("plotly_deselect");
  element.on("plotly_selected", (event) => show(event?.range));
  element.on("plotly_deselect", () => show(null));
}

function points({ x, y, customdata }) {
  const [xs, ys, facts] = [x, y, customdata].map(decoded);
  return Array.from(xs, (place, n) => ({ x: place, y: ys[n], id: facts[4 * n] }));
}

// The numbers of an array as plotly's Python side writes it.
function decoded(array) {
  if (!array?.bdata) return Array.isArray(array) ? array.flat() : []; // it writes empty ones as lists
  const bytes = Uint8Array.from(atob(array.bdata), (char) => char.charCodeAt(0));
  return new TYPES[array.dtype](bytes.buffer);
}
const TYPES = { f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array };

// Let `figures` be drawn as soon as they come into view.
export function lazily(elements, drawn) {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(entry.target);
      drawn(entry.target);
    }
  }, { rootMargin: "300px" });
  elements.forEach((element) => seen.observe(element));
  return () => seen.disconnect();
}

function themed(figure, element) {
  const style = getComputedStyle(element);
  const layout = { ...figure.layout, font: { ...figure.layout.font, color: style.color } };
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: variable(style, "--raised"), font: { color: style.color } };
  layout.annotations = layout.annotations?.map((one) => ({ bgcolor: variable(style, "--page"), ...one })); // over lines
  if (narrow(element)) { // a phone: room for the picture, not around it
    layout.margin = { ...layout.margin, l: 44, r: 8 };
    layout.title = { ...layout.title, font: { size: 12 } };
    layout.updatemenus = [];
    layout.legend = { ...layout.legend, font: { size: 10 }, entrywidth: 150 };
  }
  return { data: figure.data, layout };
}

const narrow = (element) => element.clientWidth < 500;

function variable(style, name) {
  return style.getPropertyValue(name).trim();
}
