// The walk through the samples: to one, to the next scene, or playing; and what is drawn of where one is.

import { drawCounts } from "./controls.js";
import { base, get, now, state, there, token } from "./current.js";
import * as net from "./net.js";
import { drawFigures } from "./panel.js";
import { list, strip } from "./samples.js";
import { toAddress } from "./state.js";

const AHEAD = [1, 2, 3, -1];  // samples that are drawn before one asks for them, in the direction that one goes

export function go(place) {
  now.toFirst = false;  // one has chosen oneself
  return goTo(place);
}

export async function goTo(place) {
  if (!now.order.length || !base()) return;
  const before = now.at;
  now.at = Math.max(0, Math.min(now.order.length - 1, place));
  if (now.at !== before) now.forward = now.at > before ? 1 : -1;
  state.s = token();
  toAddress(state);
  const [name, split, first, count] = base().artifact.samples.scenes[now.sceneOf[now.order[now.at]]];
  const where = `${name}${split ? ` (${split})` : ""}, ${now.order[now.at] - first + 1} of ${count}`;
  get("place").textContent = `${where} · ${(now.at + 1).toLocaleString()} / ${now.order.length.toLocaleString()}`;
  document.title = `${where} · geomim view`;
  list.select(now.at);
  strip.select(now.at, where);
  await show();
}

// Draws what is chosen; the pictures that one will want next are drawn after it.
export async function show() {
  const sample = token();
  if (!sample) return;
  const mine = ++now.turn;
  net.abandon(new Set(addresses(now.order[now.at])));
  const isCurrent = () => mine === now.turn;
  await Promise.all(there().map((pane) => pane.show(sample, state, isCurrent)));
  if (!isCurrent()) return;
  drawCounts();
  if (state.figures) drawFigures(get("figures"), there());
  document.documentElement.dataset.shown = sample;
  const next = AHEAD.map((step) => now.order[now.at + step * now.forward]).filter((place) => place !== undefined);
  net.prefetch(next.flatMap((place) => addresses(place)), isCurrent);
}

const addresses = (place) => there().flatMap((pane) => pane.addresses(base().artifact.samples.tokens[place], state));

export function scene(step) {
  if (now.at < 0) return go(0);
  const scenes = [...new Set(now.order.map((place) => now.sceneOf[place]))].sort((a, b) => a - b);
  const here = scenes.indexOf(now.sceneOf[now.order[now.at]]);
  const target = scenes[Math.max(0, Math.min(scenes.length - 1, here + step))];
  const members = now.order.filter((place) => now.sceneOf[place] === target);
  return go(now.order.indexOf(Math.min(...members)));
}

export async function play() {
  if (now.playing) return stop();
  now.playing = true;
  get("play").textContent = "❚❚ Pause";
  get("play").setAttribute("aria-label", "Pause");
  const next = () => now.order[now.at + 1];
  const ends = () => state.sort === "order" && now.sceneOf[next()] !== now.sceneOf[now.order[now.at]];
  if (now.at + 1 < now.order.length && ends()) await go(now.at + 1);  // ended before
  while (now.playing && now.at + 1 < now.order.length && !ends()) {
    const due = performance.now() + 1000 / state.speed;
    await Promise.all(addresses(next()).map((address) => net.either(address).catch(() => {})));
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
    if (now.playing) await go(now.at + 1);
  }
  stop();
}

export function stop() {
  now.playing = false;
  get("play").textContent = "▶ Play";
  get("play").setAttribute("aria-label", "Play the scene");
}
