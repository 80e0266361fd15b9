"""The focal loss (arXiv 1708.02002) of every head that has one, and the form of it that heatmaps of centres have."""

import torch
from torch import Tensor
from torch.nn import functional as F


def focal_loss(logits: Tensor, targets: Tensor, alpha: float | None = None, gamma: float = 2.0) -> Tensor:
    """Of each element: cross-entropy, weighted with the probability of the wrong answer to the power of gamma.

    targets: 0 and 1, or bool, of the logits' shape. alpha: weight of the ones against 1 - alpha of the zeros; None
    weights them alike.
    """
    is_one, probability = targets == 1, logits.sigmoid()
    weight = torch.where(is_one, 1 - probability, probability) ** gamma
    if alpha is not None:
        weight = torch.where(is_one, alpha, 1 - alpha) * weight
    return weight * F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def heatmap_loss(logits: Tensor, targets: Tensor, clamp: float | None = None) -> Tensor:
    """Gaussian focal loss of logits (B, C, rows, columns) against `heatmap.draw_centers`, per centre (CornerNet's).

    A centre is where the target is 1; elsewhere the loss counts (1 - target)^4. clamp: no probability counts as nearer
    to 0 or 1, and where one is there is no gradient: CenterPoint's heads have 1e-4, MIT's TransFusion has none.
    """
    logits, is_center = logits.float(), targets == 1
    probability = logits.sigmoid()
    if clamp is None:
        log_hit, log_miss = F.logsigmoid(logits), F.logsigmoid(-logits)
    else:
        probability = probability.clamp(clamp, 1 - clamp)
        log_hit, log_miss = probability.log(), (1 - probability).log()
    missed = -log_miss * probability**2 * (1 - targets) ** 4
    return torch.where(is_center, -log_hit * (1 - probability) ** 2, missed).sum() / is_center.sum().clamp(min=1)
