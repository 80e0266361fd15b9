"""Feature maps as colours."""

from dataclasses import dataclass

import numpy as np

from pictures.palette import VIRIDIS, scale

REACH = 2.5  # deviations from the mean to full colour
EMPTY = 96  # of 255: the grey of cells that hold nothing


@dataclass(frozen=True)
class PrincipalColours:
    """An affine map from features to colours, the same for every sample that is drawn with it."""

    centre: np.ndarray  # (C,) shown as grey
    directions: np.ndarray  # (C, 3), orthonormal: red, green and blue
    reach: np.ndarray  # (3,) features from the centre to full colour

    @classmethod
    def of(cls, cells: np.ndarray) -> "PrincipalColours":
        """The directions in which cells (n, C) differ most, the first red; signs are fixed."""
        cells = np.asarray(cells, np.float64)
        centre = cells.mean(0)
        off = cells - centre
        variances, directions = np.linalg.eigh(off.T @ off / max(1, len(cells) - 1))
        variances, directions = variances[-3:][::-1], directions[:, -3:][:, ::-1]
        largest = np.take_along_axis(directions, np.abs(directions).argmax(0)[None], 0)
        directions = np.where(largest < 0, -directions, directions)
        missing = 3 - len(variances)  # of fewer than three channels
        reach = REACH * np.sqrt(np.maximum(variances, 1e-12))
        return cls(centre, np.pad(directions, ((0, 0), (0, missing))), np.pad(reach, (0, missing), constant_values=1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(..., 3) in 0..1 of features (..., C)."""
        projected = (np.asarray(features, np.float64) - self.centre) @ self.directions
        return (projected / (2 * self.reach) + 0.5).clip(0, 1)


def principal(bev: np.ndarray, colours: PrincipalColours) -> np.ndarray:
    """(X, Y, 3) uint8 of a map (C, X, Y): its cells' colours, grey where a cell holds nothing."""
    cells = np.asarray(bev, np.float32).transpose(1, 2, 0)
    out = np.full((*cells.shape[:2], 3), EMPTY, np.uint8)
    there = (cells != 0).any(2)
    out[there] = np.round(colours(cells[there]) * 255)
    return out


def activity(bev: np.ndarray) -> np.ndarray:
    """(X, Y, 3) uint8 of a map (C, X, Y): the length of each cell's features, up to the 99th percentile."""
    length = np.sqrt((np.asarray(bev, np.float32) ** 2).sum(0))
    return scale(length / max(float(np.percentile(length[length > 0], 99)) if length.any() else 1.0, 1e-6), VIRIDIS)


def one_channel(bev: np.ndarray, channel: int) -> np.ndarray:
    """(X, Y, 3) uint8 of one channel of a map (C, X, Y), from its least to its greatest value."""
    values = np.asarray(bev[channel], np.float32)
    low, high = float(values.min()), float(values.max())
    return scale((values - low) / max(high - low, 1e-6), VIRIDIS)
