// What can be done to an experiment: each is asked about first.

import { act } from "./ask.js";
import { h } from "./dom.js";

const LIMITS = [
  ["steps", "steps of each member, in all", "number"], ["max_trials", "trials, in all", "number"],
  ["max_duration", "time, in all (600, 10m, 2h)", "text"], ["target", "metric at which to stop", "number"],
  ["workers", "trials at a time", "number"],
];
const ACTS = {
  pause: { name: "Pause", about: "No further trial begins; those that run may end. Processes, memory and GPUs are let go, and nothing is lost." },
  resume: { name: "Resume", about: "It goes on as if it had never stopped, on the machine that runs this page." },
  "go on": { name: "Go on", path: "resume", about: "It goes on where it was paused." },
  stop: { name: "Stop", about: "No further trial begins; those that run may end. It can be resumed later.", choice: ["now", "end what runs, too: it is run again later"] },
  update: { name: "Change …", limits: true, about: "How far it goes, and how many trials run at a time. Trials that run are left alone." },
};

// The buttons for what can be done to it as it stands.
export function buttons(now) {
  const able = now.controller ? [now.pausing ? "go on" : "pause", "stop", "update"] : ["resume", "update"];
  return able.map((act) => h("button", { type: "button", "data-act": act, "data-key": act }, ACTS[act].name));
}

// Ask whether it is meant, and have it done.
export function confirmed(name, base, now) {
  const { path = name, about, choice, limits, ...one } = ACTS[name];
  const label = one.name.replace(" …", ""), wrong = h("p", { class: "bad", role: "alert" });
  const field = ([key, text, type]) => h("p", {}, h("label", { class: "field" }, `${text} `, h("input", { type, name: key, step: "any", min: type === "number" && key !== "target" ? 1 : null, value: now.limits[key] })));
  const sure = h("button", { type: "submit", class: "sure" }, label);
  const dialog = h("dialog", { "aria-labelledby": "asked" },
    h("form", {},
      h("h2", { id: "asked" }, `${label} ${now.name}${limits ? "" : "?"}`), h("p", {}, about),
      limits && LIMITS.map(field),
      choice && h("p", {}, h("label", {}, h("input", { type: "checkbox", name: choice[0] }), ` ${choice[1]}`)),
      wrong,
      h("div", { class: "tools" }, sure, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    sure.disabled = true;
    wrong.textContent = "";
    try {
      const said = await act(`${base}/${path}`, body(event.target, now));
      document.getElementById("told").textContent = said;
      dialog.close();
    } catch (error) {
      wrong.textContent = error.message;
      sure.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

// What a form says, as far as it says anything new.
function body(form, now) {
  const said = {};
  for (const { name, type, value, checked } of form.elements) {
    if (type === "checkbox") said[name] = checked;
    else if (name && value !== "" && value !== String(now.limits[name] ?? "")) said[name] = type === "number" ? Number(value) : value;
  }
  return said;
}
