// The pictures of one artifact: its name, its legend, the images and the view from above, each clicked to be enlarged.

import { arrange, drawnSize, flow, GAP } from "./layout.js";
import * as net from "./net.js";
import { lookOf } from "./state.js";

const NARROW = 700;  // px of a pane that is laid out to scroll

export const word = (camera) => camera === "above" ? "from above" : camera.replace(/^CAM_/, "").replaceAll("_", " ").toLowerCase();

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export class Pane {
  constructor(host, id, artifact, boot, enlarge) {
    Object.assign(this, { id, artifact, boot, enlarge });
    this.rowOf = new Map(artifact.samples.tokens.map((token, place) => [token, artifact.samples.rows[place]]));
    this.legend = element("span", { className: "legend" });
    this.count = element("span", { className: "count" });
    this.problems = element("div", { className: "problems" });
    this.problems.append(...artifact.problems.map((words) => element("p", { className: "problem", role: "alert" }, words)));
    this.area = element("div", { className: "area" });
    this.root = element("section", { className: "pane" },
      element("div", { className: "pane-head" }, element("h2", { title: artifact.path }, `${artifact.stage} ${artifact.name}`),
        this.count, this.legend), this.problems, this.area);
    this.root.setAttribute("aria-label", `${artifact.stage} ${artifact.name}`);
    this.tiles = new Map();
    this.rows = null;
    host.append(this.root);
  }

  has(token) { return this.rowOf.has(token); }

  query(token, state) {
    const look = lookOf(state, this.artifact);
    const flags = ["truth", "predictions", "points", "depth"].map((name) => `${name}=${look[name] ? 1 : 0}`).join("&");
    return `id=${encodeURIComponent(this.id)}&sample=${this.rowOf.get(token)}&${flags}&map=${look.map}`
      + `&channel=${look.map === "channel" ? look.channel : 0}&score=${look.score}&dark=${look.dark ? 1 : 0}`;
  }

  // Only what decides a picture is in its address: a camera's does not change with the map, say.
  pictureAddress(what, token, state, size) {
    const query = new URLSearchParams(this.query(token, state));
    if (what === "above") query.set("depth", "0");
    else for (const [name, value] of [["points", "0"], ["map", "none"], ["channel", "0"], ["dark", "0"]]) query.set(name, value);
    return `/picture/${what}?${query}&size=${size}&boot=${this.boot}`;
  }

  sampleAddress(token, state) {
    const query = new URLSearchParams(this.query(token, state));
    for (const [name, value] of [["points", "0"], ["depth", "0"], ["map", "none"], ["channel", "0"], ["dark", "0"]]) query.set(name, value);
    return `/api/sample?${query}&boot=${this.boot}`;
  }

  shown(state) {
    const off = state.off ? state.off.split(",") : [];
    const rows = this.rows.map((row) => row.filter((name) => !off.includes(name)));
    return { rows, above: !off.includes("above") };
  }

  // Sizes and places of the tiles, as the window is now.
  place(state) {
    if (!this.rows) return;
    const { clientWidth: width, clientHeight: height } = this.area;
    const narrow = innerWidth < NARROW;
    this.root.classList.toggle("flow", narrow);
    const { rows, above } = this.shown(state);
    const known = rows.flat().includes(state.big) || (state.big === "above" && above);
    const ratioOf = (name) => this.sizes[name] ? this.sizes[name][1] / this.sizes[name][0] : 9 / 16;
    const ratio = Math.max(0.1, ...rows.flat().map(ratioOf));
    let plan;
    if (known && state.big === "above") plan = { grid: [], width: 0, above: narrow ? width : Math.min(width, height), beside: false };
    else if (known) {
      const widest = narrow ? width : Math.min(width, height / ratioOf(state.big));
      plan = { grid: [[state.big]], width: Math.floor(widest), above: 0, beside: false };
    } else plan = narrow ? flow(width, rows, above) : arrange(width, height, rows, ratio, above);
    this.area.classList.toggle("beside", plan.beside);
    const cameras = element("div", { className: "cameras" });
    cameras.style.gap = this.area.style.gap = `${GAP}px`;
    const wanted = new Map();
    for (const row of plan.grid) {
      const line = element("div", { className: "line" });
      line.style.gap = `${GAP}px`;
      for (const name of row) {
        wanted.set(name, plan.width);
        line.append(this.tile(name, plan.width, Math.round(plan.width * ratioOf(name)), state.big));
      }
      cameras.append(line);
    }
    const parts = plan.grid.length ? [cameras] : [];
    if (plan.above) { wanted.set("above", plan.above); parts.push(this.tile("above", plan.above, plan.above, state.big)); }
    const focused = this.area.contains(document.activeElement) ? document.activeElement.dataset.what : "";
    this.area.replaceChildren(...parts);
    if (!parts.length) this.area.append(element("p", { className: "note" }, "All pictures are switched off; 0 to 9 switch them on."));
    if (focused) this.tiles.get(focused)?.focus();
    this.wanted = wanted;
  }

  tile(name, width, height, big) {
    let tile = this.tiles.get(name);
    if (!tile) {
      tile = element("button", { className: "tile", type: "button" },
        element("img", { alt: "", draggable: false }), element("span", { className: "name" }, word(name)),
        element("span", { className: "error" }));
      tile.dataset.what = name;
      tile.addEventListener("click", () => this.enlarge(name));
      this.tiles.set(name, tile);
    }
    tile.setAttribute("aria-label", `${big === name ? "Show all pictures again; this is" : "Enlarge"} ${word(name)}`);
    tile.style.width = `${width}px`;
    tile.style.height = `${height}px`;
    return tile;
  }

  addresses(token, state) {
    if (!this.wanted || !this.has(token)) return [];
    return [this.sampleAddress(token, state),
      ...[...this.wanted].map(([what, px]) => this.pictureAddress(what, token, state, drawnSize(px)))];
  }

  // Draws a sample; ends when all of it is there. `isCurrent` tells whether it is still wanted.
  async show(token, state, isCurrent) {
    if (!this.has(token)) {
      this.area.replaceChildren(element("p", { className: "note", role: "alert" },
        `This sample is not in ${this.artifact.stage} ${this.artifact.name}, which has ${this.artifact.samples.tokens.length} others.`));
      this.legend.replaceChildren();
      this.facts = null;
      this.rows = null;
      return;
    }
    try {
      const told = await net.table(this.sampleAddress(token, state));
      if (!isCurrent()) return;
      this.facts = told.facts ?? { problem: told.problem };
      this.drawLegend(told.legend);
      const same = this.rows && JSON.stringify([this.rows, this.sizes]) === JSON.stringify([told.rows, told.sizes]);
      [this.rows, this.sizes] = [told.rows, told.sizes];
      if (!same || !this.wanted || !this.area.querySelector(".tile")) this.place(state);
    } catch (error) {
      if (error.name === "AbortError" || !isCurrent()) return;
      this.area.replaceChildren(element("p", { className: "problem", role: "alert" }, error.message));
      this.rows = null;
      return;
    }
    await Promise.all([...this.wanted].map(([what, px]) => this.fill(what, px, token, state, isCurrent)));
  }

  async fill(what, px, token, state, isCurrent) {
    const tile = this.tiles.get(what), [image, , error] = tile.children;
    const late = setTimeout(() => tile.classList.add("late"), 300);
    try {
      const picture = await net.picture(this.pictureAddress(what, token, state, drawnSize(px)));
      if (!isCurrent()) return;
      if (image.src !== picture.url) image.src = picture.url;
      image.alt = `${word(what)}, sample ${token}`;
      error.textContent = "";
      tile.title = "";
      tile.classList.remove("failed");
    } catch (problem) {
      if (problem.name === "AbortError" || !isCurrent()) return;
      image.removeAttribute("src");
      image.alt = "";
      error.textContent = problem.message.replace(/^\/\S*\/(?=[^/\s]+: )/, "");  // the file's name will do here
      tile.title = problem.message;
      tile.classList.add("failed");
    } finally {
      clearTimeout(late);
      if (isCurrent()) tile.classList.remove("late");
    }
  }

  drawLegend(entries) {
    this.legend.replaceChildren(...entries.map(([words, colour, dashed]) => {
      const line = element("span", { className: "swatch" });
      line.style.borderTop = `3px ${dashed ? "dashed" : "solid"} ${colour}`;
      return element("span", { className: "entry" }, line, words);
    }));
  }
}
