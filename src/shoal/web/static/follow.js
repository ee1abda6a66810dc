// What a trial prints, as it does.

import { text } from "./ask.js";
import { h } from "./dom.js";

const EVERY_MS = 500, LONGEST = 400_000; // characters that are kept on the page
const TAIL = 64_000; // bytes before the end with which it begins

export function follow(element, base) {
  const parts = ["stdout", "stderr"].map((name) => ({
    name, offset: null, first: 0, box: h("pre", { class: "log", role: "log", tabindex: "0", "aria-label": name }),
    earlier: h("button", { type: "button", hidden: true, "data-own": true }, "earlier"),
  }));
  parts.forEach((part) => part.earlier.addEventListener("click", () => before(part)));
  const self = { running: true, stop() { clearTimeout(timer); stopped = true; } };
  let timer = null, stopped = false;
  element.replaceChildren(...parts.flatMap(({ name, box, earlier }) => [
    h("h3", {}, name, " ", h("a", { href: `api/${base}/${name}/file`, download: true }, "download"), " ", earlier), box,
  ]));

  async function more(part) {
    const from = part.offset === null ? `tail=${TAIL}` : `offset=${part.offset}`;
    const { text: said, first, next } = await text(`${base}/${part.name}?${from}`);
    if (part.offset === null) since(part, first);
    if (stopped || next === part.offset) return false;
    const { box } = part, atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    part.offset = next;
    box.textContent = part.whole ? box.textContent + said : (box.textContent + said).slice(-LONGEST);
    if (atEnd) box.scrollTop = box.scrollHeight; // whoever has scrolled up goes on reading there
    return true;
  }

  function since(part, first) {
    part.first = first;
    part.earlier.hidden = first === 0;
  }

  // What was written before what is shown; then nothing of it is dropped any more.
  async function before(part) {
    const from = Math.max(0, part.first - TAIL);
    const { text: said } = await text(`${base}/${part.name}?offset=${from}&size=${part.first - from}`);
    const { box } = part, below = box.scrollHeight - box.scrollTop;
    part.whole = true;
    box.textContent = said + box.textContent;
    box.scrollTop = box.scrollHeight - below;
    since(part, from);
  }

  async function look() {
    let any = false;
    try { for (const part of parts) any = (await more(part)) || any; } catch { /* it is told elsewhere */ }
    if (!stopped && (any || self.running)) timer = setTimeout(look, any ? 50 : EVERY_MS);
    else timer = null;
  }
  look();
  return self;
}
