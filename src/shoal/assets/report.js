// What a report does: draws its figures when they come into view, and copies what is to be copied.

const charts = document.querySelectorAll(".chart");
const figureOf = (chart) => JSON.parse(document.getElementById(chart.dataset.figure).textContent);

lazily(charts, (chart) => draw(chart, figureOf(chart)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) if (chart.data) draw(chart, figureOf(chart));
});
addEventListener("beforeprint", () => charts.forEach((chart) => drawAtOnce(chart, figureOf(chart))));

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(text); // where nothing may be copied, it is selected
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected";
    }
  });
}
