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
from models.heatmap import draw_gaussian, gaussian_radius
from models.lidar.box_code import BoxCoder
from models.rotated_iou import iou_3d

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


def draw_heatmap(
    boxes: Boxes, shape: tuple[int, int, int], coder: BoxCoder, overlap: float, min_radius: int
) -> np.ndarray:
    """(C, X, Y) float32 target: 1 at the true centres' cells, falling off as far as a box moved there would still
    overlap the true one by `overlap`, at least `min_radius` cells."""
    heat = np.zeros(shape, np.float32)
    length, width = (boxes.sizes[:, :2] / coder.cell_size).T
    radii = np.maximum(gaussian_radius(length, width, overlap).astype(int), min_radius)
    for cell, radius, label in zip(coder.cells(boxes).astype(int), radii, boxes.labels):
        draw_gaussian(heat[label], cell, radius)
    return heat
