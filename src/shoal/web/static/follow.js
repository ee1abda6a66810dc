// What a trial prints, as it does.

import { text } from "./ask.js";
import { h } from "./dom.js";

const EVERY_MS = 500, LONGEST = 400_000; // characters that are kept on the page

export function follow(element, base) {
  const parts = ["stdout", "stderr"].map((name) => ({
    name, offset: 0, box: h("pre", { class: "log", tabindex: "0", "aria-label": name }),
  }));
  const self = { running: true, stop() { clearTimeout(timer); stopped = true; } };
  let timer = null, stopped = false;
  element.replaceChildren(...parts.flatMap(({ name, box }) => [
    h("h3", {}, name, " ", h("a", { href: `api/${base}/${name}/file`, download: true }, "download")), box,
  ]));

  async function more(part) {
    const { text: said, next } = await text(`${base}/${part.name}?offset=${part.offset}`);
    if (stopped || next === part.offset) return false;
    const { box } = part, atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
    part.offset = next;
    box.textContent = (box.textContent + said).slice(-LONGEST);
    if (atEnd) box.scrollTop = box.scrollHeight; // whoever has scrolled up goes on reading there
    return true;
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
