// What the server tells and draws. Every failure is an Error whose message is one sentence for people.

const MOST = 240;  // pictures and tables that are kept
const kept = new Map();  // address -> Promise
const coming = new Map();  // address -> what aborts it

async function ask(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal, headers: { Accept: "application/json, image/*" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("geomim view does not answer; was it ended? Start it again and open its new link.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let words = text || `the server answered ${answer.status}`;
  try { words = JSON.parse(text).error ?? words; } catch { /* it is the sentence itself */ }
  throw new Error(words);
}

export async function json(address, signal) {
  return (await ask(address, signal)).json();
}

async function image(address, signal) {
  const picture = { url: URL.createObjectURL(await (await ask(address, signal)).blob()) };
  const element = new Image();
  element.src = picture.url;
  await element.decode();
  return picture;
}

function remembered(address, load) {
  let promise = kept.get(address);
  if (promise) { kept.delete(address); kept.set(address, promise); return promise; }
  const loading = new AbortController();
  promise = load(address, loading.signal);
  kept.set(address, promise);
  coming.set(address, loading);
  const forget = () => { if (coming.get(address) === loading) coming.delete(address); };
  promise.then(forget, () => { forget(); if (kept.get(address) === promise) kept.delete(address); });
  while (kept.size > MOST) {
    const [oldest, old] = kept.entries().next().value;
    kept.delete(oldest);
    old.then((value) => value.url && setTimeout(URL.revokeObjectURL, 10000, value.url), () => {});
  }
  return promise;
}

export const picture = (address) => remembered(address, image);
export const table = (address) => remembered(address, json);
export const either = (address) => address.startsWith("/picture/") ? picture(address) : table(address);

// Gives up what is on its way and is not wanted any more.
export function abandon(wanted) {
  for (const [address, loading] of coming) {
    if (wanted.has(address)) continue;
    coming.delete(address);
    kept.delete(address);
    loading.abort();
  }
}

// Loads addresses, few at a time, as long as it should; failures are told when somebody looks at them.
export function prefetch(addresses, isCurrent) {
  const waiting = addresses.filter((address) => !kept.has(address));
  const work = async () => {
    while (waiting.length && isCurrent()) await either(waiting.shift()).catch(() => {});
  };
  return Promise.all([work(), work(), work()]);
}
