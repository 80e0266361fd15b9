// The figures of the sample, and the facts of the artifact.

import * as net from "./net.js";
import { element, word } from "./pane.js";

const total = (counts) => Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);

function table(caption, heads, rows) {
  const made = element("table", {}, element("caption", {}, caption));
  made.append(element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))));
  made.append(element("tbody", {}, ...rows.map(([head, ...cells]) => element("tr", {},
    element("th", { scope: "row" }, head), ...cells.map((cell) => element("td", {}, String(cell ?? "")))))));
  return made;
}

function ofSample(facts, predicts) {
  if (facts.problem) return [element("p", { className: "problem", role: "alert" }, facts.problem)];
  const names = Object.keys({ ...facts.boxes, ...facts.missed, ...facts.false }).sort();
  const parts = [];
  if (predicts) {
    const rows = names.map((name) => [name.replaceAll("_", " "), facts.boxes[name] ?? 0, facts.missed[name] ?? 0, facts.false[name] ?? 0]);
    rows.push(["all", total(facts.boxes), total(facts.missed), total(facts.false)]);
    parts.push(table(`Boxes; ${facts.right} predicted ones are right`, ["class", "true", "missed", "false"], rows));
  } else {
    const rows = names.map((name) => [name.replaceAll("_", " "), facts.boxes[name]]);
    parts.push(table("True boxes", ["class", "boxes"], [...rows, ["all", total(facts.boxes)]]));
  }
  if (facts.points) {
    const rows = Object.entries(facts.points).map(([name, n]) => [word(name), n.toLocaleString()]);
    parts.push(table("LiDAR points in the cameras", ["camera", "points"], rows));
  }
  if (facts.active_cells !== undefined) {
    parts.push(element("p", {}, `${facts.active_cells.toLocaleString()} cells of the teacher's map hold something.`));
  }
  const when = new Date(facts.timestamp / 1000).toISOString().replace("T", " ").slice(0, 22);
  parts.push(element("p", { className: "token" }, `${facts.scene}, ${facts.split || "no split"}, ${when} UTC`,
    element("br"), element("code", {}, facts.token)));
  return parts;
}

function listOf(rows) {
  return element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

// Whether its numbers look sound: the server looks at some of them when this is first shown.
function ofHealth(pane) {
  const made = element("details", { open: true, className: "health" }, element("summary", {}, "Health"));
  pane.health ??= net.json(`/api/health?id=${encodeURIComponent(pane.id)}`);
  pane.health.then((seen) => made.append(...seen.flatMap(([name, odd, rows]) => [
    odd ? element("p", { className: "problem" }, `${name} looks wrong: ${odd}`) : element("p", {}, `${name} looks sound`), listOf(rows)])),
  (error) => {
    pane.health = null;  // asked again with the next sample
    made.append(element("p", { className: "problem" }, error.message));
  });
  return made;
}

function ofArtifact(pane) {
  const { artifact, id } = pane;
  const parts = artifact.sections.map(([title, rows]) => element("details",
    { open: title === "Artifact" || title === "Result" || title === "Made from" }, element("summary", {}, title), listOf(rows)));
  if (artifact.sections.length) parts.splice(2, 0, ofHealth(pane));
  if (artifact.pictures.length) {
    parts.push(element("details", { open: artifact.stage === "pretrain" }, element("summary", {}, "Pictures that it left"),
      ...artifact.pictures.map((name) => {
        const address = `/stored?id=${encodeURIComponent(id)}&name=${encodeURIComponent(name)}`;
        return element("a", { href: address, target: "_blank", className: "stored" },
          element("img", { src: address, alt: name, loading: "lazy" }), name);
      })));
  }
  return parts;
}

export function drawFigures(host, panes) {
  const open = new Map([...host.querySelectorAll("details")].map((one) => [one.dataset.of, one.open]));
  host.replaceChildren(...panes.map((pane, place) => {
    const made = element("section", {}, element("h3", {}, `${pane.artifact.stage} ${pane.artifact.name}`),
      ...(pane.facts ? ofSample(pane.facts, pane.artifact.has.predictions) : []), ...ofArtifact(pane));
    made.querySelectorAll("details").forEach((one, number) => {
      one.dataset.of = `${place}-${pane.id}-${number}`;
      if (open.has(one.dataset.of)) one.open = open.get(one.dataset.of);
    });
    return made;
  }));
}
