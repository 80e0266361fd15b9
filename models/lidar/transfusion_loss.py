"""What a TransFusion head learns from: a heatmap of centres, and one query for every true box.

Targets are made in NumPy on the CPU: the matching needs the predictions there, and they are small.

Shape legend: B samples, C classes, Q queries, G true boxes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.boxes import Boxes
from models.geometry import rotation_z
from models.lidar.box_code import BoxCoder

CODE_WEIGHTS = np.array([1.0] * 8 + [0.2] * 2)  # velocity counts less
BOX_WEIGHT = 0.25
CLASS_COST, DISTANCE_COST, OVERLAP_COST = 0.15, 0.25, 0.25
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_FORBIDDEN = 1e6  # a cost that is not finite: the loss will say so, with the samples' names


def heatmap_loss(logits: Tensor, truth: Sequence[Boxes], coder: BoxCoder, overlap: float, min_radius: int) -> Tensor:
    """Focal loss of logits (B, C, X, Y) against Gaussians around the true centres, per centre (CornerNet's)."""
    drawn = np.stack([draw_heatmap(boxes, logits.shape[1:], coder, overlap, min_radius) for boxes in truth])
    target = torch.from_numpy(drawn).to(logits.device)
    is_center = target == 1
    probability = logits.sigmoid()
    hit = -F.logsigmoid(logits) * (1 - probability) ** 2
    miss = -F.logsigmoid(-logits) * probability**2 * (1 - target) ** 4
    return torch.where(is_center, hit, miss).sum() / is_center.sum().clamp(min=1)


def query_loss(
    codes: Tensor, logits: Tensor, truth: Sequence[Boxes], coder: BoxCoder, extent: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Focal loss of class logits (B, Q, C) and L1 of box codes (B, Q, 10), each per matched query.

    extent: of the range along x and y (m).
    """
    said, probabilities = codes.detach().cpu().numpy(), logits.detach().sigmoid().cpu().numpy()
    is_class, wanted, weights = (np.zeros(t.shape, np.float32) for t in (logits, codes, codes))
    matched = 0
    for b, boxes in enumerate(truth):
        scores, labels = probabilities[b].max(1), probabilities[b].argmax(1)
        queries, chosen = match(coder.decode(said[b], labels, scores), probabilities[b], boxes, extent)
        code = coder.encode(boxes[chosen])
        known = np.isfinite(code)
        is_class[b, queries, boxes.labels[chosen]] = 1
        wanted[b, queries] = np.where(known, code, 0)
        weights[b, queries] = known * CODE_WEIGHTS
        matched += len(queries)
    is_class, wanted, weights = (torch.from_numpy(a).to(codes.device) for a in (is_class, wanted, weights))
    classes = focal_loss(logits, is_class) / max(1, matched)
    return classes, BOX_WEIGHT * (weights * (codes - wanted).abs()).sum() / max(1, matched)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of the focal losses of logits against 0 and 1 (arXiv 1708.02002)."""
    wrong = torch.where(target == 1, 1 - logits.sigmoid(), logits.sigmoid())
    balance = torch.where(target == 1, _ALPHA, 1 - _ALPHA)
    return (balance * wrong**_GAMMA * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()


def match(found: Boxes, probabilities: np.ndarray, truth: Boxes, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which query answers for which true box: two index arrays (min(Q, G),), at the least total cost.

    probabilities (Q, C); extent: of the range along x and y (m), by which distances are divided.
    """
    p = probabilities[:, truth.labels].astype(np.float64)  # (Q, G)
    tiny = 1e-12
    as_object = -_ALPHA * (1 - p) ** _GAMMA * np.log(p + tiny)
    as_background = -(1 - _ALPHA) * p**_GAMMA * np.log(1 - p + tiny)
    apart = np.abs(found.centers[:, None, :2] - truth.centers[None, :, :2]) / extent
    cost = CLASS_COST * (as_object - as_background) + DISTANCE_COST * apart.sum(2) - OVERLAP_COST * iou_3d(found, truth)
    return linear_sum_assignment(np.where(np.isfinite(cost), cost, _FORBIDDEN))


def iou_3d(a: Boxes, b: Boxes) -> np.ndarray:
    """(N, M) intersection over union of the volumes of boxes that stand upright but turn about z."""
    apart = np.linalg.norm(a.centers[:, None, :2] - b.centers[None, :, :2], axis=2)
    reach_a, reach_b = (np.linalg.norm(boxes.sizes[:, :2], axis=1) / 2 for boxes in (a, b))
    i, j = np.nonzero(apart < reach_a[:, None] + reach_b[None])  # of the others no pair touches
    outline = (a.corners()[i, :4, :2] - b.centers[j, None, :2]) @ rotation_z(b.yaws[j])[:, :2, :2]
    top = np.minimum(a.centers[i, 2] + a.sizes[i, 2] / 2, b.centers[j, 2] + b.sizes[j, 2] / 2)
    bottom = np.maximum(a.centers[i, 2] - a.sizes[i, 2] / 2, b.centers[j, 2] - b.sizes[j, 2] / 2)
    shared = np.zeros((len(a), len(b)))
    shared[i, j] = area_within(outline, b.sizes[j, :2] / 2) * np.maximum(top - bottom, 0)
    return shared / (a.sizes.prod(1)[:, None] + b.sizes.prod(1)[None] - shared)


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


def draw_heatmap(
    boxes: Boxes, shape: tuple[int, int, int], coder: BoxCoder, overlap: float, min_radius: int
) -> np.ndarray:
    """(C, X, Y) float32 target: 1 at the true centres' cells, falling off as far as a box moved there would still
    overlap the true one by `overlap`, at least `min_radius` cells."""
    heat = np.zeros(shape, np.float32)
    length, width = (boxes.sizes[:, :2] / coder.cell_size).T
    radii = np.maximum(gaussian_radius(length, width, overlap).astype(int), min_radius)
    for (x, y), radius, label in zip(coder.cells(boxes).astype(int), radii, boxes.labels):
        along_x, along_y = (_bump(np.arange(n) - center, radius) for n, center in zip(shape[1:], (x, y)))
        np.maximum(heat[label], np.outer(along_x, along_y), out=heat[label])
    return heat


def _bump(offset: np.ndarray, radius: int) -> np.ndarray:
    sigma = (2 * radius + 1) / 6
    return np.where(np.abs(offset) <= radius, np.exp(-(offset**2) / (2 * sigma**2)), 0)


def gaussian_radius(length: np.ndarray, width: np.ndarray, overlap: float) -> np.ndarray:
    """CornerNet's radius of a box's Gaussian (cells), with the roots that mmdetection3d takes."""
    around, area = length + width, length * width
    shifted = (around + np.sqrt(around**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    shrunk = around + np.sqrt(around**2 - 4 * area * (1 - overlap))
    grown = -overlap * around + np.sqrt((overlap * around) ** 2 + 4 * overlap * (1 - overlap) * area)
    return np.minimum(np.minimum(shifted, shrunk), grown)
