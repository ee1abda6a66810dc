// All experiments.

import { ask } from "./ask.js";
import { ago, duration, fill, h, say, stateOf, table, when } from "./dom.js";

export function list(main) {
  let wanted = "", there = [];
  const input = h("input", { type: "search", id: "search", placeholder: "name, id or state" });
  input.addEventListener("input", () => { wanted = input.value.toLowerCase(); draw(); });
  const rows = h("div");
  let begun = false;

  function draw() {
    const seen = there.filter((one) => `${one.name} ${one.id} ${one.state}`.toLowerCase().includes(wanted));
    if (!there.length) {
      fill(rows, h("p", {}, "There is no experiment yet: ", h("code", {}, "shoal run CONFIG"), " makes one."));
    } else if (!seen.length) fill(rows, h("p", {}, "None is called that."));
    else fill(rows, table("experiments", COLUMNS, seen, { key: (one) => one.id }));
  }

  return {
    same: (at) => !at.id, move() {},
    async refresh() {
      there = await ask("experiments");
      if (!begun) {
        begun = true;
        main.replaceChildren(h("h1", {}, "Experiments"), h("div", { class: "tools" }, h("label", { for: "search" }, "Search"), input), rows,
          h("p", { class: "soft" }, "The same as JSON: ", h("a", { href: "api" }, "API")));
        document.title = "shoal";
      }
      draw();
    },
  };
}

const total = ({ finished, total }) => (finished == null ? "" : total ? `${finished}/${total}` : finished);
const COLUMNS = [
  ["name", (one) => (one.name == null ? one.id : h("a", { href: `#/${one.id}` }, one.name))],
  ["id", (one) => one.id],
  ["state", (one) => [stateOf(one.state), one.state === "unreadable" && ` ${one.reason}`]],
  ["trials", (one) => String(total(one.trials)), { number: true }],
  ["best", (one) => say(one.best), { number: true }],
  ["population", (one) => say(one.population), { number: true }],
  ["time", (one) => duration(one.seconds), { number: true }],
  ["begun", (one) => h("time", { datetime: one.created, title: when(one.created) }, ago(one.created))],
];
