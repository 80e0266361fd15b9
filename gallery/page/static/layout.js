// How big the camera images and the view from above are, and where they stand, so that all of them are seen at once.

export const GAP = 6;
const CAMERAS_WEIGH = 1.6;  // against the view from above

// rows: names of cameras, as one sees them from the car. ratio: height over width of the highest image.
// Returns {columns: [[name]] by row, width, above, beside} with px sizes; above 0 where it is not shown.
export function arrange(width, height, rows, ratio, withAbove) {
  const shown = rows.filter((row) => row.length);
  const count = shown.flat().length;
  if (!count) return { grid: [], width: 0, above: Math.floor(Math.min(width, height)), beside: false };
  const turned = Array.from({ length: Math.max(...shown.map((row) => row.length)) },
    (_, place) => shown.map((row) => row[place]).filter(Boolean));
  let best = null;
  const consider = (candidate) => {
    if (candidate.width < 40 || (withAbove && candidate.above < 80)) return;
    const value = CAMERAS_WEIGH * Math.log(candidate.width) + (withAbove ? Math.log(candidate.above) : 0);
    if (!best || value > best.value) best = { ...candidate, value };
  };
  for (const grid of shown.length > 1 ? [shown, turned] : [shown, shown[0].map((name) => [name])]) {
    const across = Math.max(...grid.map((row) => row.length)), down = grid.length;
    const fit = (w, h) => Math.min((w - (across - 1) * GAP) / across, (h - (down - 1) * GAP) / down / ratio);
    if (!withAbove) consider({ grid, width: fit(width, height), above: 0, beside: false });
    for (let share = 0.2; withAbove && share < 0.75; share += 0.025) {
      const right = Math.min(width * share, height), below = Math.min(height * share, width);
      consider({ grid, width: fit(width - right - GAP, height), above: right, beside: true });
      consider({ grid, width: fit(width, height - below - GAP), above: below, beside: false });
    }
  }
  best ??= { grid: shown, width: 120, above: withAbove ? 160 : 0, beside: false };
  return { grid: best.grid, width: Math.floor(best.width), above: Math.floor(best.above), beside: best.beside };
}

// A narrow window scrolls: two images a row, the view from above as wide as the window.
export function flow(width, rows, withAbove) {
  const names = rows.flat(), pairs = [];
  for (let i = 0; i < names.length; i += 2) pairs.push(names.slice(i, i + 2));
  return { grid: pairs, width: Math.floor((width - GAP) / 2), above: withAbove ? Math.floor(width) : 0, beside: false };
}

const SIZES = [160, 240, 320, 400, 480, 560, 640, 720, 800, 960, 1120, 1280, 1600, 1920];

// The size to ask for, so that a window that grows a little needs no new pictures.
export function drawnSize(px) {
  const wanted = px * Math.min(devicePixelRatio || 1, 2);
  return SIZES.find((size) => size >= wanted * 0.96) ?? SIZES.at(-1);
}
