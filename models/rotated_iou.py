"""How much of each other upright boxes cover that turn about z: exact, for all pairs at once."""

import numpy as np

from models.boxes import Boxes
from models.geometry import rotation_z


def iou_bev(a: Boxes, b: Boxes) -> np.ndarray:
    """(N, M) intersection over union of the outlines on the ground; 0 where both are empty."""
    i, j = _near(a, b)
    shared = np.zeros((len(a), len(b)))
    shared[i, j] = _shared_areas(a, b, i, j)
    return _over_union(shared, a.sizes[:, :2].prod(1), b.sizes[:, :2].prod(1))


def iou_3d(a: Boxes, b: Boxes) -> np.ndarray:
    """(N, M) intersection over union of the volumes; 0 where both are empty."""
    i, j = _near(a, b)
    top = np.minimum(a.centers[i, 2] + a.sizes[i, 2] / 2, b.centers[j, 2] + b.sizes[j, 2] / 2)
    bottom = np.maximum(a.centers[i, 2] - a.sizes[i, 2] / 2, b.centers[j, 2] - b.sizes[j, 2] / 2)
    shared = np.zeros((len(a), len(b)))
    shared[i, j] = _shared_areas(a, b, i, j) * np.maximum(top - bottom, 0)
    return _over_union(shared, a.sizes.prod(1), b.sizes.prod(1))


def area_within(outline: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(P,) area that convex polygons (P, V, 2) share with the rectangles [-half, half], half (P, 2).

    At each x within the rectangle they share what lies between the polygon's lower and upper side, both clamped to the
    rectangle. So the area sought is that of the outline with all its points clamped, if its edges are first cut where
    they cross the lines of the rectangle's sides, so that they stay straight.
    """
    edge = np.roll(outline, -1, 1) - outline
    sides = np.stack([-half, half], 1)[:, None]  # (P, 1, 2 sides, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = (sides - outline[:, :, None]) / edge[:, :, None]  # (P, V, 2 sides, 2), as shares of the edge
    cuts = np.clip(np.nan_to_num(cuts.reshape(*cuts.shape[:2], 4)), 0, 1)
    cuts = np.sort(np.concatenate([np.zeros_like(cuts[..., :1]), cuts], 2), 2)[..., None]  # (P, V, 5, 1)
    points = (outline[:, :, None] + cuts * edge[:, :, None]).reshape(len(outline), 5 * outline.shape[1], 2)
    x, y = np.moveaxis(points.clip(-half[:, None], half[:, None]), -1, 0)
    return np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2


def _near(a: Boxes, b: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose circles around the outlines meet; of the others none touches."""
    apart = np.linalg.norm(a.centers[:, None, :2] - b.centers[None, :, :2], axis=2)
    reach_a, reach_b = (np.linalg.norm(boxes.sizes[:, :2], axis=1) / 2 for boxes in (a, b))
    i, j = np.nonzero(apart < reach_a[:, None] + reach_b[None])
    return i, j


def _shared_areas(a: Boxes, b: Boxes, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) area (m2) that the outlines of boxes i[p] of a and j[p] of b share."""
    outline = (a.corners()[i, :4, :2] - b.centers[j, None, :2]) @ rotation_z(b.yaws)[j, :2, :2]
    return area_within(outline, b.sizes[j, :2] / 2)


def _over_union(shared: np.ndarray, whole_a: np.ndarray, whole_b: np.ndarray) -> np.ndarray:
    union = whole_a[:, None] + whole_b[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
