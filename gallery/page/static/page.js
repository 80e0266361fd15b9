// The page: what is chosen (state.js), shown by one pane an artifact (pane.js), walked through by list, strip and keys.

import { keysTable, listenToKeys } from "./keys.js";
import { SampleList } from "./list.js";
import * as net from "./net.js";
import { listed, possible, ORDERS } from "./order.js";
import { element, Pane, word } from "./pane.js";
import { drawFigures } from "./panel.js";
import { fillPickers } from "./pickers.js";
import { fromAddress, isDark, lookOf, toAddress } from "./state.js";
import { Strip } from "./strip.js";

const AHEAD = [1, 2, 3, -1];  // samples that are drawn before one asks for them, in the direction that one goes
const MAPS = ["none", "pca", "activity", "channel"];
const get = (id) => document.getElementById(id);

let state = fromAddress();
let shelf = { entries: [], chosen: [] };
let panes = [];
let sceneOf = [];  // place in the table -> number of its scene
let order = [];  // places that are listed
let at = 0;  // place in `order`
let opening = 0, turn = 0, playing = false;
let forward = 1;  // or -1, where one goes back
let toFirst = false;  // to the first of an order that is still being counted
const list = new SampleList(get("list"), get("list-space"), (place) => go(place));
const strip = new Strip(get("strip"), (place) => go(place));
const there = () => panes.filter((pane) => pane.artifact);
const base = () => there()[0] ?? null;
const other = () => there()[1] ?? null;
const token = () => base()?.artifact.samples.tokens[order[at]];

// What is open ---------------------------------------------------------------------------------------------------------

async function start() {
  try {
    shelf = await net.json("/api/shelf");
  } catch (error) {
    get("panes").replaceChildren(element("p", { className: "problem", role: "alert" }, error.message));
    return;
  }
  for (const [name, colour] of Object.entries(shelf.colours)) document.documentElement.style.setProperty(`--${name}`, colour);
  drawScale();
  fillPickers(shelf.entries, [get("a"), get("b")]);
  if (!state.a) {
    const newest = (stage) => shelf.entries.find((entry) => !stage || entry.stage === stage)?.id;
    state.a = shelf.chosen[0] ?? newest("evaluate") ?? newest("teacher") ?? newest();
    state.b ||= shelf.chosen[1] ?? "";
  }
  await open();
}

// near: where the chosen sample is not in both of two artifacts, the next that is will do.
async function open(near = false) {
  stop();
  const mine = ++opening;
  turn++;  // what was on its way is not wanted
  net.abandon(new Set());
  panes = [];
  get("a").value = state.a;
  get("b").value = state.b;
  get("swap").hidden = !state.b;
  const ids = [state.a, state.b].filter(Boolean);
  const opened = await Promise.all(ids.map((id) => net.json(`/api/artifact?id=${encodeURIComponent(id)}`)
    .then((artifact) => ({ id, artifact }), (error) => ({ id, problem: error.message }))));
  if (mine !== opening) return;
  get("panes").replaceChildren();
  get("panes").classList.toggle("two", ids.length > 1);
  panes = opened.map(({ id, artifact, problem }) => {
    if (artifact) {
      const pane = new Pane(get("panes"), id, artifact, shelf.boot, enlarge);
      pane.placeOf = new Map(artifact.samples.tokens.map((one, place) => [one, place]));
      return pane;
    }
    get("panes").append(element("section", { className: "pane" }, element("div", { className: "pane-head" }, element("h2", {}, id)),
      element("p", { className: "problem", role: "alert" }, problem)));
    return { id };
  });
  sceneOf = [];
  base()?.artifact.samples.scenes.forEach(([, , , count], scene) => { for (let i = 0; i < count; i++) sceneOf.push(scene); });
  drawControls();
  toFirst = !state.s && state.sort !== "order";
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
  if (!order.includes(fits[0])) { state.find = get("find").value = ""; relist(); }
  const place = order.indexOf(wanted || !order.length ? fits[0] : order[0]);
  if (place >= 0) return goTo(place);
  if (near) return goTo(Math.max(0, order.findIndex((one) => one >= fits[0])));
  say(`Sample ${tokens[fits[0]]} is not in ${other().artifact.stage} ${other().artifact.name}; choose one that both have in the list.`);
}

function say(words) {
  for (const pane of there()) { pane.area.replaceChildren(); pane.rows = null; }
  base().area.append(element("p", { className: "note", role: "alert" }, words));
  at = -1;
  list.select(-1);
  get("place").textContent = "";
  toAddress(state);
}

// Where one is ---------------------------------------------------------------------------------------------------------

function go(place) {
  toFirst = false;  // one has chosen oneself
  return goTo(place);
}

async function goTo(place) {
  if (!order.length || !base()) return;
  const before = at;
  at = Math.max(0, Math.min(order.length - 1, place));
  if (at !== before) forward = at > before ? 1 : -1;
  state.s = token();
  toAddress(state);
  const [name, split, first, count] = base().artifact.samples.scenes[sceneOf[order[at]]];
  const where = `${name}${split ? ` (${split})` : ""}, ${order[at] - first + 1} of ${count}`;
  get("place").textContent = `${where} · ${(at + 1).toLocaleString()} / ${order.length.toLocaleString()}`;
  document.title = `${where} · geomim view`;
  list.select(at);
  strip.select(at, where);
  await show();
}

// Draws what is chosen; the pictures that one will want next are drawn after it.
async function show() {
  const sample = token();
  if (!sample) return;
  const mine = ++turn;
  net.abandon(new Set(addresses(order[at])));
  const isCurrent = () => mine === turn;
  await Promise.all(there().map((pane) => pane.show(sample, state, isCurrent)));
  if (!isCurrent()) return;
  drawCounts();
  if (state.figures) drawFigures(get("figures"), there());
  document.documentElement.dataset.shown = sample;
  const next = AHEAD.map((step) => order[at + step * forward]).filter((place) => place !== undefined);
  net.prefetch(next.flatMap((place) => addresses(place)), isCurrent);
}

const addresses = (place) => there().flatMap((pane) => pane.addresses(base().artifact.samples.tokens[place], state));

function scene(step) {
  if (at < 0) return go(0);
  const scenes = [...new Set(order.map((place) => sceneOf[place]))].sort((a, b) => a - b);
  const here = scenes.indexOf(sceneOf[order[at]]);
  const target = scenes[Math.max(0, Math.min(scenes.length - 1, here + step))];
  const members = order.filter((place) => sceneOf[place] === target);
  return go(order.indexOf(Math.min(...members)));
}

async function play() {
  if (playing) return stop();
  playing = true;
  get("play").textContent = "❚❚ Pause";
  get("play").setAttribute("aria-label", "Pause");
  const inOrder = state.sort === "order";
  if (at + 1 < order.length && inOrder && sceneOf[order[at + 1]] !== sceneOf[order[at]]) await go(at + 1);  // ended before
  while (playing && at + 1 < order.length && !(inOrder && sceneOf[order[at + 1]] !== sceneOf[order[at]])) {
    const due = performance.now() + 1000 / state.speed;
    await Promise.all(addresses(order[at + 1]).map((address) => net.either(address).catch(() => {})));
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
    if (playing) await go(at + 1);
  }
  stop();
}

function stop() {
  playing = false;
  get("play").textContent = "▶ Play";
  get("play").setAttribute("aria-label", "Play the scene");
}

// The list and its counts ----------------------------------------------------------------------------------------------

function relist() {
  const kept = at >= 0 ? order[at] : undefined;
  order = base() ? listed(base(), other(), state, sceneOf) : [];
  const samples = base()?.artifact.samples, tally = base()?.tally;
  const most = tally ? Math.max(1, ...tally.missed.map((n, place) => n + tally.false[place])) : 1;
  list.fill(order.length, (row) => {
    const place = order[row], [name, , first, count] = samples.scenes[sceneOf[place]];
    return { title: `${name} · ${place - first + 1}/${count}`, ...counted(place, most) };
  });
  strip.fill(order.map((place) => tally ? [tally.missed[place] ?? 0, tally.false[place] ?? 0] : [samples.boxes[place]]),
    order.map((place) => sceneOf[place]));
  const place = order.indexOf(kept);
  at = place;
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
  const number = `${order.length.toLocaleString()} sample${order.length === 1 ? "" : "s"}`;
  const done = base()?.tally?.missed.length, of = base()?.artifact.samples.tokens.length;
  const what = !base()?.artifact.has.predictions ? "boxes" : other()?.tally ? "right : right of the second" : "missed / false";
  const counting = base()?.artifact.has.predictions && done !== of ? `, ${(done ?? 0).toLocaleString()} counted` : "";
  get("counted").textContent = `${number}${counting} · ${what}`;
}

let countings = 0;

async function count() {
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
    if (!toFirst) relist();
  }
  if (predicting.length) relist();
  if (toFirst) go(0);
}

// What is drawn --------------------------------------------------------------------------------------------------------

function drawControls() {
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
const channels = () => Math.max(0, ...there().map((pane) => pane.artifact.has.channels));
const tileNames = () => { const rows = there().find((pane) => pane.rows)?.rows; return rows ? [...rows.flat(), "above"] : []; };

// The layers that are on, where an artifact's own usual ones were not changed.
function effective() {
  const looks = there().map((pane) => lookOf(state, pane.artifact));
  const some = (name) => looks.some((look) => look[name]);
  return { truth: some("truth"), predictions: state.predictions, points: state.points, depth: some("depth"),
    map: looks.find((look) => look.map !== "none")?.map ?? "none" };
}

function drawCounts() {
  if (get("tiles").childElementCount === 0) drawControls();
  for (const pane of there()) {
    const { facts } = pane;
    const total = (counts) => Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);
    pane.count.textContent = facts?.right === undefined ? "" : `${facts.right} right · ${total(facts.missed)} missed · ${total(facts.false)} false`;
  }
}

// Some of what is chosen is another now: drawn again. focus: what has the focus afterwards, where it was redrawn.
function change(chosen, focus) {
  Object.assign(state, chosen);
  toAddress(state);
  drawControls();
  for (const pane of there()) pane.place(state);
  if (focus) document.querySelector(focus)?.focus();
  if ("score" in chosen) recount();
  if ("sort" in chosen || "find" in chosen) {
    relist();
    const counted = there().every((pane) => !pane.artifact.has.predictions || pane.tally?.missed.length >= pane.tally?.of);
    toFirst = "sort" in chosen && state.sort !== "order" && !counted;
    if (order.length && (at < 0 || ("sort" in chosen && state.sort !== "order" && counted))) return void goTo(0);
  }
  show();
}

let recounting;
function recount() {
  clearTimeout(recounting);
  recounting = setTimeout(count, 200);
}

function enlarge(name) {
  change({ big: state.big === name ? "" : name });
  there()[0]?.tiles.get(name)?.focus();
}

function drawScale() {
  const { from, to, colours } = shelf.depth, bar = element("span", { className: "bar" });
  bar.style.background = `linear-gradient(to right, ${colours.join(",")})`;
  get("depth-scale").replaceChildren(`${from} m `, bar, ` ${to} m`);
}

// Keys and buttons -----------------------------------------------------------------------------------------------------

const step = (value, by) => Math.round(Math.max(0.05, Math.min(0.95, value + by)) * 100) / 100;
const toggle = (name) => change({ [name]: !effective()[name] });
const channel = (by) => change({ map: "channel", channel: Math.max(0, Math.min(channels() - 1, state.channel + by)) });
const swap = () => { if (state.b) { [state.a, state.b] = [state.b, state.a]; open(true); } };
const figures = () => { change({ figures: !state.figures }); if (state.figures) drawFigures(get("figures"), there()); };
const theme = () => change({ theme: isDark(state) ? "light" : "dark" });
const worst = () => change({ sort: state.sort === "order" && possible(base(), other()).includes("worst") ? "worst" : "order" });

const ACTIONS = {
  ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), Home: () => go(0), End: () => go(order.length - 1),
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
  const action = inList ? () => go(at + inList) : ACTIONS[key];
  return action && (() => { if (playing && key !== " ") stop(); action(); });
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
    on(id, "click", () => { if (playing && key !== " ") stop(); ACTIONS[key](); });
  }
  for (const button of document.querySelectorAll("[data-layer]")) button.addEventListener("click", () => toggle(button.dataset.layer));
  listenToKeys(actionOf);
  addEventListener("hashchange", () => { state = fromAddress(); open(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));
  let settled;
  new ResizeObserver(() => {
    for (const pane of there()) pane.place(state);
    clearTimeout(settled);
    settled = setTimeout(show, 150);  // bigger pictures, where they are needed
  }).observe(get("panes"));
  addEventListener("focus", async () => {  // what was finished or deleted meanwhile
    const now = await net.json("/api/shelf").catch(() => null);
    if (!now || JSON.stringify(now.entries) === JSON.stringify(shelf.entries)) return;
    shelf = now;
    fillPickers(shelf.entries, [get("a"), get("b")]);
    [get("a").value, get("b").value] = [state.a, state.b];
  });
}

get("keys-table").append(keysTable());
drawControls();
listen();
start();
