"""What a TransFusion head learns from: a heatmap of centres, and one query for every true box.

Targets are made in NumPy on the CPU: the matching needs the predictions there, and they are small.

Shape legend: B samples, C classes, Q queries, G true boxes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.boxes import Boxes
from models.focal_loss import focal_loss
from models.heatmap import draw_centers
from models.lidar.box_code import BoxCoder
from models.rotated_iou import iou_3d

CODE_WEIGHTS = np.array([1.0] * 8 + [0.2] * 2)  # velocity counts less
BOX_WEIGHT = 0.25
CLASS_COST, DISTANCE_COST, OVERLAP_COST = 0.15, 0.25, 0.25
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_FORBIDDEN = 1e6  # a cost that is not finite: the loss will say so, with the samples' names


def draw_heatmap(
    boxes: Boxes, shape: tuple[int, int, int], coder: BoxCoder, overlap: float, min_radius: int
) -> np.ndarray:
    """The target (C, X, Y) of boxes on the map, see `heatmap.draw_centers`."""
    cells, sizes = coder.cells(boxes).astype(int), boxes.sizes[:, :2] / coder.cell_size
    return draw_centers(shape, boxes.labels, cells, sizes, overlap, min_radius)


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
    classes, targets, factors = (torch.from_numpy(a).to(codes.device) for a in (is_class, wanted, weights))
    class_loss = focal_loss(logits, classes, _ALPHA, _GAMMA).sum() / max(1, matched)
    return class_loss, BOX_WEIGHT * (factors * (codes - targets).abs()).sum() / max(1, matched)


def match(found: Boxes, probabilities: np.ndarray, truth: Boxes, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which query answers for which true box: two index arrays (min(Q, G),), at the least total cost.

    probabilities (Q, C); extent: of the range along x and y (m), by which distances are divided.
    """
    p = probabilities[:, truth.labels].astype(np.float64)  # (Q, G)
    from scipy.optimize import linear_sum_assignment  # a second of import, which only training needs

    tiny = 1e-12
    as_object = -_ALPHA * (1 - p) ** _GAMMA * np.log(p + tiny)
    as_background = -(1 - _ALPHA) * p**_GAMMA * np.log(1 - p + tiny)
    apart = np.abs(found.centers[:, None, :2] - truth.centers[None, :, :2]) / extent
    cost = CLASS_COST * (as_object - as_background) + DISTANCE_COST * apart.sum(2) - OVERLAP_COST * iou_3d(found, truth)
    return linear_sum_assignment(np.where(np.isfinite(cost), cost, _FORBIDDEN))
