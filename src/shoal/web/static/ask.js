// What the server is asked.

const known = new Map(); // answers by address, with their tags: what has not changed is not sent again

export async function ask(path) {
  const before = known.get(path);
  const answer = await fetch(`api/${path}`, { headers: before ? { "if-none-match": before.tag } : {}, cache: "no-store" });
  if (answer.status === 304) return before.said;
  if (answer.status === 401) location.assign("login");
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  const tag = answer.headers.get("etag");
  if (tag) {
    known.delete(path);
    known.set(path, { tag, said });
    if (known.size > 40) known.delete(known.keys().next().value);
  }
  return said;
}

export async function text(path) {
  const answer = await fetch(`api/${path}`, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return { text: await answer.text(), next: Number(answer.headers.get("x-next-offset")) };
}

// Call `happened` whenever something has; the browser connects again by itself.
export function listen(id, happened, connected) {
  const source = new EventSource(id ? `api/experiments/${encodeURIComponent(id)}/events` : "api/events");
  source.onopen = () => connected(true);
  source.onerror = () => connected(false);
  source.addEventListener("changed", happened);
  return source;
}
