// All that is chosen. It stands in the address, what is as usual left out, so that the address opens the same view.

export const USUAL = {
  a: "", b: "", s: "",  // names of the artifacts, the sample's token
  truth: null, predictions: true, points: true, depth: null, map: null, channel: 0, score: 0.2,  // null: by artifact
  big: "", off: "", sort: "order", find: "", figures: false, speed: 2, theme: "",
};

export function fromAddress() {
  const state = { ...USUAL };
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in USUAL)) continue;
    const usual = USUAL[name];
    if (typeof usual === "number") state[name] = Number.isFinite(Number(text)) ? Number(text) : usual;
    else if (typeof usual === "boolean" || name === "truth" || name === "depth") state[name] = text === "1";
    else state[name] = text;
  }
  state.score = Math.min(0.95, Math.max(0.05, state.score));
  state.channel = Math.max(0, Math.round(state.channel));
  return state;
}

export function toAddress(state) {
  const chosen = new URLSearchParams();
  for (const [name, usual] of Object.entries(USUAL)) {
    const value = state[name];
    if (value === usual || value === null) continue;
    chosen.set(name, typeof value === "boolean" ? (value ? "1" : "0") : String(value));
  }
  const text = "#" + chosen.toString().replaceAll("%2F", "/").replaceAll("%7E", "~");
  if (text !== location.hash) history.replaceState(null, "", text === "#" ? "/" : text);
}

export function isDark(state) {
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// What of the choice decides an artifact's pictures, as the server names it.
export function lookOf(state, artifact) {
  const usual = artifact.usual;
  return {
    truth: state.truth ?? usual.truth, predictions: state.predictions, points: state.points,
    depth: (state.depth ?? usual.depth) && artifact.has.depth,
    map: artifact.has.channels ? state.map ?? usual.map : "none",
    channel: Math.min(state.channel, Math.max(0, artifact.has.channels - 1)),
    score: state.score, dark: isDark(state),
  };
}
