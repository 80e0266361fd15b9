// The page: its keys and buttons, and what each does.

import { change, channels, drawControls, effective, enlarge, tileNames } from "./controls.js";
import { base, get, now, other, state, there } from "./current.js";
import { keysTable, listenToKeys } from "./keys.js";
import * as net from "./net.js";
import { open, start } from "./opening.js";
import { possible } from "./order.js";
import { drawFigures } from "./panel.js";
import { fillPickers } from "./pickers.js";
import { fromAddress, isDark, toAddress } from "./state.js";
import { go, play, scene, show, stop } from "./walk.js";

const MAPS = ["none", "pca", "activity", "channel"];

const step = (value, by) => Math.round(Math.max(0.05, Math.min(0.95, value + by)) * 100) / 100;
const toggle = (name) => change({ [name]: !effective()[name] });
const channel = (by) => change({ map: "channel", channel: Math.max(0, Math.min(channels() - 1, state.channel + by)) });
const swap = () => { if (state.b) { [state.a, state.b] = [state.b, state.a]; open(true); } };
const figures = () => { change({ figures: !state.figures }); if (state.figures) drawFigures(get("figures"), there()); };
const theme = () => change({ theme: isDark(state) ? "light" : "dark" });
const worst = () => change({ sort: state.sort === "order" && possible(base(), other()).includes("worst") ? "worst" : "order" });

const ACTIONS = {
  ArrowRight: () => go(now.at + 1), ArrowLeft: () => go(now.at - 1), Home: () => go(0), End: () => go(now.order.length - 1),
  ArrowDown: () => scene(1), ArrowUp: () => scene(-1), "]": () => scene(1), "[": () => scene(-1), " ": play,
  t: () => toggle("truth"), p: () => toggle("predictions"), l: () => toggle("points"), d: () => toggle("depth"),
  "+": () => change({ score: step(state.score, 0.05) }), "=": () => change({ score: step(state.score, 0.05) }),
  "-": () => change({ score: step(state.score, -0.05) }), "−": () => change({ score: step(state.score, -0.05) }),
  m: () => change({ map: MAPS[(MAPS.indexOf(effective().map) + 1) % MAPS.length] }),
  ".": () => channel(1), ",": () => channel(-1), Escape: () => { if (state.big) enlarge(state.big); },
  o: worst, "/": () => { showList(true); get("find").focus(); }, x: swap, i: figures, n: theme, "?": () => get("keys").showModal(),
};

// What a key does here, beyond ACTIONS: digits enlarge, and in the list arrows go to the next sample, not scene.
function actionOf(key, target) {
  if (!base() || get("keys").open) return null;
  if (/^[0-9]$/.test(key)) {
    const name = key === "0" ? "above" : tileNames().slice(0, -1)[Number(key) - 1];
    return name ? () => enlarge(name) : null;
  }
  const inList = target.id === "list" && { ArrowDown: 1, ArrowUp: -1 }[key];
  const action = inList ? () => go(now.at + inList) : ACTIONS[key];
  return action && (() => { if (now.playing && key !== " ") stop(); action(); });
}

function showList(shown) {
  document.body.classList.toggle("list-open", shown);
  get("toggle-list").setAttribute("aria-expanded", shown);
}

function listen() {
  const on = (id, type, action) => get(id).addEventListener(type, action);
  on("a", "change", (event) => { state.a = event.target.value; open(true); });
  on("b", "change", (event) => { state.b = event.target.value; open(true); });
  on("swap", "click", swap);
  on("figures-button", "click", figures);
  on("theme", "click", theme);
  on("help", "click", ACTIONS["?"]);
  on("keys-close", "click", () => get("keys").close());
  on("toggle-list", "click", () => showList(!document.body.classList.contains("list-open")));
  on("score", "input", (event) => change({ score: Number(event.target.value) }));
  on("map", "change", (event) => change({ map: event.target.value }));
  on("channel", "input", (event) => change({ channel: Math.max(0, Math.min(channels() - 1, Math.round(Number(event.target.value)) || 0)) }));
  on("sort", "change", (event) => change({ sort: event.target.value }));
  on("find", "input", (event) => change({ find: event.target.value }));
  on("speed", "change", (event) => { state.speed = Number(event.target.value); toAddress(state); });
  for (const [id, key] of [["back", "ArrowLeft"], ["next", "ArrowRight"], ["scene-back", "["], ["scene-next", "]"], ["play", " "]]) {
    on(id, "click", () => { if (now.playing && key !== " ") stop(); ACTIONS[key](); });
  }
  for (const button of document.querySelectorAll("[data-layer]")) button.addEventListener("click", () => toggle(button.dataset.layer));
  listenToKeys(actionOf);
  addEventListener("hashchange", () => { Object.assign(state, fromAddress()); open(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));
  let settled;
  new ResizeObserver(() => {
    for (const pane of there()) pane.place(state);
    clearTimeout(settled);
    settled = setTimeout(show, 150);  // bigger pictures, where they are needed
  }).observe(get("panes"));
  addEventListener("focus", async () => {  // what was finished or deleted meanwhile
    const told = await net.json("/api/shelf").catch(() => null);
    if (!told || JSON.stringify(told.entries) === JSON.stringify(now.shelf.entries)) return;
    now.shelf = told;
    fillPickers(now.shelf.entries, [get("a"), get("b")]);
    [get("a").value, get("b").value] = [state.a, state.b];
  });
}

get("keys-table").append(keysTable());
drawControls();
listen();
start();
