// Opening: what the address names, or else the newest, one pane an artifact.

import { drawControls, drawScale, enlarge } from "./controls.js";
import { base, get, now, other, state, there } from "./current.js";
import * as net from "./net.js";
import { element, Pane } from "./pane.js";
import { fillPickers } from "./pickers.js";
import { count, list, relist } from "./samples.js";
import { toAddress } from "./state.js";
import { goTo, stop } from "./walk.js";

let opening = 0;

export async function start() {
  try {
    now.shelf = await net.json("/api/shelf");
  } catch (error) {
    get("panes").replaceChildren(element("p", { className: "problem", role: "alert" }, error.message));
    return;
  }
  for (const [name, colour] of Object.entries(now.shelf.colours)) document.documentElement.style.setProperty(`--${name}`, colour);
  drawScale();
  fillPickers(now.shelf.entries, [get("a"), get("b")]);
  if (!state.a) {
    const newest = (stage) => now.shelf.entries.find((entry) => !stage || entry.stage === stage)?.id;
    state.a = now.shelf.chosen[0] ?? newest("evaluate") ?? newest("teacher") ?? newest();
    state.b ||= now.shelf.chosen[1] ?? "";
  }
  await open();
}

// near: where the chosen sample is not in both of two artifacts, the next that is will do.
export async function open(near = false) {
  stop();
  const mine = ++opening;
  now.turn++;  // what was on its way is not wanted
  net.abandon(new Set());
  now.panes = [];
  get("a").value = state.a;
  get("b").value = state.b;
  get("swap").hidden = !state.b;
  const ids = [state.a, state.b].filter(Boolean);
  const opened = await Promise.all(ids.map((id) => net.json(`/api/artifact?id=${encodeURIComponent(id)}`)
    .then((artifact) => ({ id, artifact }), (error) => ({ id, problem: error.message }))));
  if (mine !== opening) return;
  get("panes").replaceChildren();
  get("panes").classList.toggle("two", ids.length > 1);
  now.panes = opened.map(({ id, artifact, problem }) => {
    if (artifact) {
      const pane = new Pane(get("panes"), id, artifact, now.shelf.boot, enlarge);
      pane.placeOf = new Map(artifact.samples.tokens.map((one, place) => [one, place]));
      return pane;
    }
    get("panes").append(element("section", { className: "pane" }, element("div", { className: "pane-head" }, element("h2", {}, id)),
      element("p", { className: "problem", role: "alert" }, problem)));
    return { id };
  });
  now.sceneOf = [];
  base()?.artifact.samples.scenes.forEach(([, , , count], scene) => { for (let i = 0; i < count; i++) now.sceneOf.push(scene); });
  drawControls();
  now.toFirst = !state.s && state.sort !== "order";
  relist();
  find(near);
  count();
}

// To the sample that the address names; where it names none of these, a sentence stands in place of pictures.
function find(near) {
  if (!base()) { toAddress(state); return; }
  const { tokens } = base().artifact.samples;
  const wanted = state.s.trim();
  const exact = base().placeOf.get(wanted);
  const fits = exact !== undefined ? [exact] : wanted ? [...tokens.keys()].filter((place) => tokens[place].startsWith(wanted)) : [0];
  const name = `${base().artifact.stage} ${base().artifact.name}`;
  if (!tokens.length) return say(`${name} holds no samples.`);
  if (fits.length !== 1) {
    const what = fits.length ? `the beginning of ${fits.length} tokens` : "no sample's token";
    return say(`“${wanted}” is ${what} of ${name}; choose a sample in the list.`);
  }
  if (!now.order.includes(fits[0])) { state.find = get("find").value = ""; relist(); }
  const place = now.order.indexOf(wanted || !now.order.length ? fits[0] : now.order[0]);
  if (place >= 0) return goTo(place);
  if (near) return goTo(Math.max(0, now.order.findIndex((one) => one >= fits[0])));
  say(`Sample ${tokens[fits[0]]} is not in ${other().artifact.stage} ${other().artifact.name}; choose one that both have in the list.`);
}

function say(words) {
  for (const pane of there()) { pane.area.replaceChildren(); pane.rows = null; }
  base().area.append(element("p", { className: "note", role: "alert" }, words));
  now.at = -1;
  list.select(-1);
  get("place").textContent = "";
  toAddress(state);
}
