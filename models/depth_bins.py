"""Depth as a class: bins along a ray, their labels from LiDAR, and the loss between the two."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

NO_LABEL = -1


@dataclass(frozen=True)
class DepthBins:
    """Bins from `low` to `high` m, (high - low) / step of them.

    Evenly spaced, or ("log") with edges that grow exponentially from `low` to high - 1 m, BEVDet's "SID".
    """

    low: float
    high: float
    step: float
    spacing: Literal["even", "log"] = "even"

    @property
    def count(self) -> int:
        return round((self.high - self.low) / self.step)

    def edges(self, device: torch.device | None = None) -> Tensor:
        """Lower edge of every bin (D,), m, float64: where a frustum point of the bin stands."""
        index = torch.arange(self.count, dtype=torch.float64, device=device)
        if self.spacing == "even":
            return self.low + index * self.step
        return self.low * torch.exp(index / (self.count - 1) * math.log((self.high - 1) / self.low))

    def labels(self, depth: Tensor) -> Tensor:
        """Bin (int64) of every depth (m), NO_LABEL outside [low, high). Even bin k covers low + [k, k + 1) step."""
        if self.spacing == "even":
            position = (depth - self.low) / self.step
        else:
            scale = (self.count - 1) / math.log((self.high - 1) / self.low)
            position = torch.log(depth.clamp(min=1e-6) / self.low) * scale
        index = position.floor().long()
        return torch.where((depth > 0) & (index >= 0) & (index < self.count), index, NO_LABEL)


def depth_loss(depth_prob: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy between bin probabilities and one-hot labels, summed over bins, mean over labelled cells.

    depth_prob: (..., D, h, w) after the softmax. labels: (..., h, w) with NO_LABEL. 0 where nothing is labelled.
    """
    valid = labels != NO_LABEL
    # Where nothing is labelled, 0 against 0, which costs nothing: to leave such cells out, a GPU would have to be asked
    # how many there are.
    prob = torch.where(valid.unsqueeze(-3), depth_prob, 0).float()
    target = (labels.unsqueeze(-3) == torch.arange(prob.shape[-3], device=labels.device).view(-1, 1, 1)).float()
    # torch's own refuses NaN (on a GPU by killing the context); here NaN must come out, for the caller to report.
    loss = F.binary_cross_entropy(prob.nan_to_num(0.0), target, reduction="sum") + 0 * prob.sum()
    return loss / valid.sum().clamp(min=1)
