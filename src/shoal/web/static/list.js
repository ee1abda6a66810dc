// All experiments.

import { ask } from "./ask.js";
import { ago, duration, fill, h, say, stateOf, table, when } from "./dom.js";

export function list(main, at) {
  let { search = "", sort = "", order = "asc" } = at.query, there = [];
  const input = h("input", { type: "search", id: "search", placeholder: "name, id or state", value: search });
  input.addEventListener("input", () => { search = input.value; address(); draw(); });
  const rows = h("div");
  let begun = false;

  // The address holds the view; what is typed is no step to go back to.
  function address() {
    const said = Object.fromEntries(Object.entries({ search, sort, order: sort && order }).filter(([, value]) => value));
    history.replaceState(null, "", `#/${Object.keys(said).length ? `?${new URLSearchParams(said)}` : ""}`);
  }

  function sorted(by) {
    order = sort === by && order === "asc" ? "desc" : "asc";
    sort = by;
    address();
    draw();
  }

  function draw() {
    const seen = there.filter((one) => `${one.name} ${one.id} ${one.state}`.toLowerCase().includes(search.toLowerCase()));
    if (sort) seen.sort((one, other) => (order === "asc" ? 1 : -1) * compared(VALUES[sort](one), VALUES[sort](other)));
    if (!there.length) {
      fill(rows, h("p", {}, "There is no experiment yet: ", h("code", {}, "shoal run CONFIG"), " makes one."));
    } else if (!seen.length) fill(rows, h("p", {}, "None is called that."));
    else fill(rows, table("experiments", COLUMNS, seen, { key: (one) => one.id, sorted: { by: sort, descending: order === "desc" }, onsort: sorted }));
  }

  return {
    same: (next) => !next.id,
    async move(next) {
      ({ search = "", sort = "", order = "asc" } = next.query);
      if (input !== document.activeElement) input.value = search;
      draw();
    },
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
const VALUES = { name: (one) => one.name ?? one.id, state: (one) => one.state, trials: (one) => one.trials.finished, failed: (one) => one.trials.failed, best: (one) => one.best, time: (one) => one.seconds, begun: (one) => one.created };
const compared = (a, b) => (a == null || b == null ? (a == null) - (b == null) : a < b ? -1 : a > b ? 1 : 0);
const COLUMNS = [
  ["name", (one) => (one.name == null ? one.id : h("a", { href: `#/${one.id}` }, one.name)), { sort: "name" }],
  ["id", (one) => one.id],
  ["state", (one) => [stateOf(one.state), one.state === "unreadable" && ` ${one.reason}`], { sort: "state" }],
  ["trials", (one) => String(total(one.trials)), { number: true, sort: "trials" }],
  ["failed", (one) => (one.trials.failed ? h("span", { class: "bad" }, String(one.trials.failed)) : ""), { number: true, sort: "failed" }],
  ["best", (one) => say(one.best), { number: true, sort: "best" }],
  ["population", (one) => say(one.population), { number: true }],
  ["time", (one) => duration(one.seconds), { number: true, sort: "time" }],
  ["begun", (one) => h("time", { datetime: one.created, title: when(one.created) }, ago(one.created)), { sort: "begun" }],
];
