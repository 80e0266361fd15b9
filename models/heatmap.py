"""What a heatmap of box centres learns from: a Gaussian at each centre, as CornerNet draws them (arXiv 1808.01244)."""

from collections.abc import Sequence

import numpy as np


def draw_centers(
    shape: tuple[int, int, int],
    labels: Sequence[int] | np.ndarray,
    cells: np.ndarray,
    sizes: np.ndarray,
    overlap: float,
    min_radius: int,
) -> np.ndarray:
    """The target (C, rows, columns) float32: 1 at the centres, falling off around them; of two the higher counts.

    labels: N classes. cells: (N, 2) int, row and column, on the map. sizes: (N, 2), length and width in cells.
    overlap: a centre reaches as far as a box moved there would still overlap the true one by this much, in whole cells,
        and at least `min_radius` of them.
    """
    heat = np.zeros(shape, np.float32)
    length, width = sizes.T
    radii = np.maximum(gaussian_radius(length, width, overlap).astype(int), min_radius)
    for label, cell, radius in zip(labels, cells, radii):
        draw_gaussian(heat[label], cell, radius)
    return heat


def gaussian_radius(length: np.ndarray, width: np.ndarray, overlap: float) -> np.ndarray:
    """How far (cells) a box of this size (cells) may be moved and still overlap itself by `overlap`, with the roots
    that mmdetection3d takes."""
    around, area = length + width, length * width
    shifted = (around + np.sqrt(around**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    shrunk = around + np.sqrt(around**2 - 4 * area * (1 - overlap))
    grown = -overlap * around + np.sqrt((overlap * around) ** 2 + 4 * overlap * (1 - overlap) * area)
    return np.minimum(np.minimum(shifted, shrunk), grown)


def draw_gaussian(heat: np.ndarray, center: tuple[int, int], radius: int) -> None:
    """Raise a map (rows, columns) in place to a bump of 1 at the cell `center` (row, column), cut off at `radius`."""
    sigma = (2 * radius + 1) / 6
    bump = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    low = [max(0, radius - c) for c in center]
    high = [min(2 * radius + 1, size - c + radius) for size, c in zip(heat.shape, center)]
    window = heat[tuple(slice(c - radius + a, c - radius + b) for c, a, b in zip(center, low, high))]
    np.maximum(window, np.outer(bump[low[0] : high[0]], bump[low[1] : high[1]]), out=window)


def draw_bump(heat: np.ndarray, center: tuple[int, int], spread: np.ndarray) -> None:
    """Raise a map (rows, columns) in place to a bump of 1 at the cell `center` (row, column).

    spread: its deviation down and across (cells).
    """
    down, across = (
        np.exp(-((np.arange(size) - at) ** 2) / (2 * deviation**2))
        for size, at, deviation in zip(heat.shape, center, spread)
    )
    np.maximum(heat, np.outer(down, across), out=heat)
