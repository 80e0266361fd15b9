// Which samples are listed, and in what order: as driven, or those first that one should look at.

export const UNCOUNTED = -1;

const at = (tally, name, place) => place === undefined ? UNCOUNTED : tally?.[name][place] ?? UNCOUNTED;
const both = (tally, place) => at(tally, "missed", place) === UNCOUNTED ? UNCOUNTED : tally.missed[place] + tally.false[place];

// Name -> words, and what is sorted by, the greatest first, of (base, other) and a place in base's table.
export const ORDERS = {
  order: { words: "as driven" },
  worst: { words: "most missed and false", counts: true, value: (base, other, place) => both(base.tally, place) },
  missed: { words: "most missed", counts: true, value: (base, other, place) => at(base.tally, "missed", place) },
  false: { words: "most false", counts: true, value: (base, other, place) => at(base.tally, "false", place) },
  right: { words: "most right", counts: true, value: (base, other, place) => at(base.tally, "right", place) },
  better: { words: "where the first finds more", compares: true, value: (base, other, place) => gain(base, other, place) },
  worse: { words: "where the second finds more", compares: true, value: (base, other, place) => -gain(base, other, place) },
  boxes: { words: "most boxes", value: (base, other, place) => base.artifact.samples.boxes[place] },
};

// How many more true boxes the first finds of a sample.
function gain(base, other, place) {
  const there = other?.placeOf.get(base.artifact.samples.tokens[place]);
  const counts = [at(base.tally, "right", place), at(other?.tally, "right", there)];
  return counts.includes(UNCOUNTED) ? -Infinity : counts[0] - counts[1];
}

export function possible(base, other) {
  const predicts = (pane) => Boolean(pane?.artifact.has.predictions);
  return Object.entries(ORDERS).filter(([, order]) =>
    (!order.counts || predicts(base)) && (!order.compares || (predicts(base) && predicts(other)))).map(([name]) => name);
}

// Places in base's table, of the samples that are listed: of two artifacts those that both have, if there are any.
export function listed(base, other, state, sceneOf) {
  const { tokens, scenes, rows } = base.artifact.samples, find = state.find.trim().toLowerCase();
  let places = [...rows.keys()];
  const shared = other ? places.filter((place) => other.placeOf.has(tokens[place])) : [];
  if (shared.length) places = shared;
  if (find) {
    places = places.filter((place) => {
      const [name, split] = scenes[sceneOf[place]];
      return tokens[place].startsWith(find) || name.toLowerCase().includes(find) || split === find;
    });
  }
  const value = possible(base, other).includes(state.sort) ? ORDERS[state.sort].value : null;
  if (value) {
    const values = new Map(places.map((place) => [place, value(base, other, place)]));
    const usable = (n) => Number.isFinite(n) ? n : -Infinity;
    places.sort((a, b) => usable(values.get(b)) - usable(values.get(a)) || a - b);
  }
  return places;
}
