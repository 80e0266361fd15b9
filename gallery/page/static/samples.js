// The samples as list and strip: which are shown, in what order, and how many boxes of each were missed and are false.

import { base, get, now, other, state, there } from "./current.js";
import { SampleList } from "./list.js";
import * as net from "./net.js";
import { listed } from "./order.js";
import { Strip } from "./strip.js";
import { go } from "./walk.js";

export const list = new SampleList(get("list"), get("list-space"), (place) => go(place));
export const strip = new Strip(get("strip"), (place) => go(place));

export function relist() {
  const kept = now.at >= 0 ? now.order[now.at] : undefined;
  now.order = base() ? listed(base(), other(), state, now.sceneOf) : [];
  const samples = base()?.artifact.samples, tally = base()?.tally;
  const most = tally ? Math.max(1, ...tally.missed.map((n, place) => n + tally.false[place])) : 1;
  list.fill(now.order.length, (row) => {
    const place = now.order[row], [name, , first, count] = samples.scenes[now.sceneOf[place]];
    return { title: `${name} · ${place - first + 1}/${count}`, ...counted(place, most) };
  });
  strip.fill(now.order.map((place) => tally ? [tally.missed[place] ?? 0, tally.false[place] ?? 0] : [samples.boxes[place]]),
    now.order.map((place) => now.sceneOf[place]));
  const place = now.order.indexOf(kept);
  now.at = place;
  if (place >= 0) { list.select(place); strip.select(place, ""); }
  sayCounted();
}

function counted(place, most) {
  const [one, two] = [base(), other()], tally = one.tally;
  if (!one.artifact.has.predictions) return { detail: String(one.artifact.samples.boxes[place]), label: `${one.artifact.samples.boxes[place]} boxes` };
  if (tally?.missed[place] === undefined) return { detail: "…" };
  const bars = [[tally.missed[place] / most, "missed"], [tally.false[place] / most, "false"]];
  const label = `${tally.right[place]} right, ${tally.missed[place]} missed, ${tally.false[place]} false`;
  const second = two?.tally?.right[two.placeOf.get(one.artifact.samples.tokens[place])];
  if (second === undefined) return { detail: `${tally.missed[place]} / ${tally.false[place]}`, bars, label };
  return { detail: `${tally.right[place]} : ${second}`, bars, label: `${label}; the second finds ${second}` };
}

function sayCounted() {
  const number = `${now.order.length.toLocaleString()} sample${now.order.length === 1 ? "" : "s"}`;
  const done = base()?.tally?.missed.length, of = base()?.artifact.samples.tokens.length;
  const what = !base()?.artifact.has.predictions ? "boxes" : other()?.tally ? "right : right of the second" : "missed / false";
  const counting = base()?.artifact.has.predictions && done !== of ? `, ${(done ?? 0).toLocaleString()} counted` : "";
  get("counted").textContent = `${number}${counting} · ${what}`;
}

let countings = 0;

export async function count() {
  const mine = ++countings, predicting = there().filter((pane) => pane.artifact.has.predictions);
  for (const pane of predicting) {
    for (;;) {
      let tally;
      try {
        tally = await net.json(`/api/tally?id=${encodeURIComponent(pane.id)}&score=${state.score}`);
      } catch (error) {
        if (mine === countings) get("counted").textContent = error.message;
        return;
      }
      if (mine !== countings) return;
      pane.tally = tally;
      if (tally.missed.length >= tally.of) break;
      sayCounted();
    }
    if (!now.toFirst) relist();
  }
  if (predicting.length) relist();
  if (now.toFirst) go(0);
}

let recounting;

export function recount() {
  clearTimeout(recounting);
  recounting = setTimeout(count, 200);
}
