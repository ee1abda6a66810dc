// What the server is asked.

const known = new Map(); // answers by address, with their tags: what has not changed is not sent again

const coming = new Map(); // what was asked for before it was needed

// Ask for what will be needed: the next `ask` has it.
export function soon(path) {
  coming.set(path, ask(path));
  coming.get(path).catch(() => {}); // it is told to whoever needs it
}

export async function ask(path) {
  if (coming.has(path)) {
    const there = coming.get(path);
    coming.delete(path);
    return there;
  }
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
  return { text: await answer.text(), first: Number(answer.headers.get("x-offset")), next: Number(answer.headers.get("x-next-offset")) };
}

// Have something done; what the server says of it.
export async function act(path, body = {}) {
  const { guard } = await (await fetch("api/guard", { cache: "no-store" })).json();
  const answer = await fetch(`api/${path}`, {
    method: "POST", cache: "no-store", body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-shoal-guard": guard },
  });
  if (answer.status === 401) location.assign("login");
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said.said;
}

// Call `happened` whenever something has; the browser connects again by itself.
export function listen(id, happened, connected) {
  const source = new EventSource(id ? `api/experiments/${encodeURIComponent(id)}/events` : "api/events");
  source.onopen = () => connected(true);
  source.onerror = () => connected(false);
  source.addEventListener("changed", happened);
  return source;
}
