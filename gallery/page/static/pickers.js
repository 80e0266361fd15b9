// What can be opened, in words: what tells an artifact from the others of its stage.

import { element } from "./pane.js";

// The two lists of what can be opened, by stage.
export function fillPickers(entries, selects) {
  for (const which of selects) {
    const stages = [...new Set(entries.map((entry) => entry.stage))];
    which.replaceChildren(...(which.id === "b" ? [element("option", { value: "" }, "nothing")] : []),
      ...stages.map((stage) => element("optgroup", { label: stage },
        ...entries.filter((entry) => entry.stage === stage).map((entry) => element("option", { value: entry.id }, describe(entry))))));
  }
}

function describe(entry) {
  const scores = Object.entries(entry.scores ?? {}).map(([name, value]) => `${name} ${value.toFixed(4)}`);
  const settings = Object.entries(entry.settings ?? {}).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(" ") : value}`);
  const short = entry.stage === "dataroot" ? entry.id.slice(9) : entry.name.slice(0, 8);
  const made = entry.created ? [entry.created.slice(0, 16).replace("T", " ")] : [];
  return [short, ...(entry.damaged ? ["damaged"] : []), ...scores, ...settings, ...made].join(" · ");
}
