// The OpenAPI document, to be read; and what is only looked at, to be tried.

import { h, table } from "./dom.js";

const SHOWN = 20_000; // characters of an answer

const document_ = await (await fetch("api/openapi.json")).json();
const operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })));
document.getElementById("main").replaceChildren(
  h("h1", {}, `${document_.info.title} ${document_.info.version}`), h("p", {}, document_.info.description),
  h("p", {}, "The whole of it as ", h("a", { href: "api/openapi.json" }, "an OpenAPI document"), "; errors are ", h("code", {}, '{"error": text}'), "."),
  h("p", {}, "What makes something happen is asked for with POST, and needs the header ", h("code", {}, document_.components.securitySchemes.guard.name), ": what ", h("a", { href: "api/guard" }, "api/guard"), " answers."),
  ...operations.map(described));

function described(operation) {
  const { path, method, summary, parameters, requestBody, responses } = operation;
  const given = [...parameters.map((one) => ({ ...one, where: one.in })), ...fields(requestBody)];
  const [media, { schema }] = Object.entries(responses["200"].content)[0];
  return h("details", { class: "operation", "data-path": path },
    h("summary", {}, h("code", { class: "state busy" }, method.toUpperCase()), " ", h("code", {}, path), ` ${summary}`),
    given.length > 0 && table(`parameters of ${path}`, [
      ["name", (one) => h("code", {}, one.name)], ["in", (one) => one.where],
      ["what", (one) => typed(one.schema)], ["", (one) => [one.required && "needed. ", one.description]],
    ], given),
    h("p", {}, "Answers ", media, media.endsWith("json") && [": ", h("code", {}, typed(schema))]),
    h("p", { class: "soft" }, "Or ", Object.entries(responses).slice(1).map(([code, { description }]) => `${code}: ${description}`).join("; "), "."),
    method === "get" && trial(operation));
}

function fields(body) {
  const named = Object.entries(body?.content["application/json"].schema.properties ?? {});
  return named.map(([name, schema]) => ({ name, schema, where: "body", description: schema.description }));
}

// A schema in few words.
function typed(schema) {
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `[${typed(schema.items)}, …]`;
  if (schema.properties) return `{${Object.keys(schema.properties).join(", ")}${schema.additionalProperties === false ? "" : ", …"}}`;
  const range = [schema.minimum != null && `from ${schema.minimum}`, schema.default != null && `${schema.default} by itself`].filter(Boolean);
  return [[schema.type ?? "anything"].flat().join(" or "), ...range].join(", ");
}

function trial({ path, parameters }) {
  const answer = h("pre", { class: "log", tabindex: "0", hidden: true, "aria-label": `answer of ${path}` }), where = h("p", {});
  const form = h("form", { class: "tools" },
    parameters.map((one) => h("label", {}, `${one.name} `, h("input", { name: one.name, required: one.required, "data-in": one.in, placeholder: one.schema.default ?? "" }))),
    h("button", { type: "submit" }, "Ask"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    let place = path.slice(1);
    for (const { name, value, dataset } of form.querySelectorAll("input")) {
      if (dataset.in === "path") place = place.replace(`{${name}}`, encodeURIComponent(value));
      else if (value !== "") query.set(name, value);
    }
    if (query.size) place += `?${query}`;
    where.replaceChildren(h("a", { href: place }, place));
    const got = await fetch(place, { cache: "no-store" });
    const readable = /json|text/.test(got.headers.get("content-type"));
    const said = readable ? await got.text() : "what it answers is a file: the link above has it";
    if (!readable) got.body.cancel();
    answer.hidden = false;
    answer.textContent = `${got.status}\n${pretty(said).slice(0, SHOWN)}`;
  });
  return h("div", {}, form, where, answer);
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
