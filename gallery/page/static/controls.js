// The controls: they show what is chosen, and `change` is how something else is.

import { base, get, now, other, state, there } from "./current.js";
import { ORDERS, possible } from "./order.js";
import { element, word } from "./pane.js";
import { recount, relist, strip } from "./samples.js";
import { isDark, lookOf, toAddress } from "./state.js";
import { goTo, show } from "./walk.js";

export function drawControls() {
  const dark = isDark(state);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  get("theme").textContent = dark ? "Light" : "Dark";
  strip.draw();
  const opened = there();
  const anyHas = (name) => opened.some((pane) => pane.artifact.has[name]);
  const look = effective();
  for (const button of document.querySelectorAll("[data-layer]")) {
    const name = button.dataset.layer;
    button.setAttribute("aria-pressed", Boolean(look[name]));
    button.disabled = (name === "predictions" && !anyHas("predictions")) || (name === "depth" && !anyHas("depth"));
  }
  get("score-label").hidden = !anyHas("predictions");
  get("score").value = state.score;
  get("score-value").textContent = state.score.toFixed(2);
  get("map-group").hidden = !anyHas("channels");
  get("map").value = look.map;
  get("channel-label").hidden = look.map !== "channel";
  get("channel").value = state.channel;
  get("channel").max = Math.max(0, channels() - 1);
  get("depth-scale").hidden = !look.depth;
  const sorts = base() ? possible(base(), other()) : ["order"];
  get("sort").replaceChildren(...sorts.map((name) => element("option", { value: name }, ORDERS[name].words)));
  get("sort").value = sorts.includes(state.sort) ? state.sort : "order";
  get("find").value = state.find;
  get("speed").value = String(state.speed);
  get("figures").hidden = !state.figures;
  get("figures-button").setAttribute("aria-expanded", state.figures);
  const off = state.off ? state.off.split(",") : [];
  get("tiles").replaceChildren(...tileNames().map((name, number) => {
    const button = element("button", { title: `Show ${word(name)} or not`, className: "small" }, word(name));
    button.setAttribute("aria-pressed", !off.includes(name));
    button.addEventListener("click", () => change({ off: toggled(off, name).join(","), big: "" }, `#tiles > :nth-child(${number + 1})`));
    return button;
  }));
}

const toggled = (names, name) => names.includes(name) ? names.filter((one) => one !== name) : [...names, name];
export const channels = () => Math.max(0, ...there().map((pane) => pane.artifact.has.channels));
export const tileNames = () => { const rows = there().find((pane) => pane.rows)?.rows; return rows ? [...rows.flat(), "above"] : []; };

// The layers that are on, where an artifact's own usual ones were not changed.
export function effective() {
  const looks = there().map((pane) => lookOf(state, pane.artifact));
  const some = (name) => looks.some((look) => look[name]);
  return { truth: some("truth"), predictions: state.predictions, points: state.points, depth: some("depth"),
    map: looks.find((look) => look.map !== "none")?.map ?? "none" };
}

export function drawCounts() {
  if (get("tiles").childElementCount === 0) drawControls();
  for (const pane of there()) {
    const { facts } = pane;
    const total = (counts) => Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);
    pane.count.textContent = facts?.right === undefined ? "" : `${facts.right} right · ${total(facts.missed)} missed · ${total(facts.false)} false`;
  }
}

// Some of what is chosen is another now: drawn again. focus: what has the focus afterwards, where it was redrawn.
export function change(chosen, focus) {
  Object.assign(state, chosen);
  toAddress(state);
  drawControls();
  for (const pane of there()) pane.place(state);
  if (focus) document.querySelector(focus)?.focus();
  if ("score" in chosen) recount();
  if ("sort" in chosen || "find" in chosen) {
    relist();
    const counted = there().every((pane) => !pane.artifact.has.predictions || pane.tally?.missed.length >= pane.tally?.of);
    now.toFirst = "sort" in chosen && state.sort !== "order" && !counted;
    if (now.order.length && (now.at < 0 || ("sort" in chosen && state.sort !== "order" && counted))) return void goTo(0);
  }
  show();
}

export function enlarge(name) {
  change({ big: state.big === name ? "" : name });
  there()[0]?.tiles.get(name)?.focus();
}

export function drawScale() {
  const { from, to, colours } = now.shelf.depth, bar = element("span", { className: "bar" });
  bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
  get("depth-scale").replaceChildren(`${from} m `, bar, ` ${to} m`);
}
