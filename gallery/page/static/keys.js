// Keys: which there are, and when a key is the page's rather than that of what has the focus.

import { element } from "./pane.js";

const KEYS = [
  ["→ ←", "next sample, sample before"], ["Home End", "first and last sample"], ["↓ ↑ or ] [", "next scene, scene before"],
  ["space", "play the scene"], ["t", "true boxes"], ["p", "predicted boxes"], ["+ −", "score that a box must have"],
  ["l", "LiDAR from above"], ["d", "LiDAR over the images, by depth"], ["m", "the teacher's map: none, PCA, activity, channel"],
  [". ,", "next channel, channel before"], ["1 to 9", "enlarge a camera"], ["0", "enlarge the view from above"],
  ["Esc", "all pictures again"], ["o", "order: the worst samples first, or as driven"], ["/", "find a scene, split or token"],
  ["x", "swap the two that are compared"], ["i", "figures and facts"], ["n", "light or dark"], ["?", "this table"],
];

export function keysTable() {
  return element("dl", { className: "keys" }, ...KEYS.flatMap(([keys, words]) => [
    element("dt", {}, ...keys.split(" ").map((key) => key === "or" || key === "to" ? ` ${key} ` : element("kbd", {}, key))),
    element("dd", {}, words)]));
}

// actionOf: (key, target) -> what it does, or nothing.
export function listenToKeys(actionOf) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { tagName, type } = event.target, { key } = event;
    const writes = tagName === "INPUT" || tagName === "SELECT";
    if (writes && key === "Escape") return void event.target.blur();
    if (writes && !(type === "range" && !/^(Arrow|Home|End)/.test(key))) return;
    if (["BUTTON", "SUMMARY", "A"].includes(tagName) && (key === " " || key === "Enter")) return;
    const action = actionOf(key, event.target);
    if (!action) return;
    if (key.startsWith("Arrow") || key === " " || key === "/") event.preventDefault();
    action();
  });
}
