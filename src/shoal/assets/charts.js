// Figures as plotly's Python side writes them, in the colours of the page that they are on.

const MODE = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

// Draw `figure` in `element`, or again with what has changed: zoom and hidden lines stay.
export async function draw(element, figure) {
  const { data, layout } = themed(figure, element);
  layout.uirevision = "stays";
  await Plotly.react(element, data, layout, MODE);
}

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
  if (element.clientWidth < 500) { // a phone: room for the picture, not around it
    layout.margin = { ...layout.margin, l: 44, r: 8 };
    layout.title = { ...layout.title, font: { size: 12 } };
    layout.legend = { ...layout.legend, font: { size: 10 }, entrywidth: 100 };
  }
  const ink = { color: style.color };
  const data = figure.data.map((trace) =>
    trace.type === "parcoords" ? { ...trace, labelfont: ink, tickfont: ink, rangefont: ink } : trace);
  return { data, layout };
}

function variable(style, name) {
  return style.getPropertyValue(name).trim();
}
