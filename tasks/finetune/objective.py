"""What a step of finetuning minimises, in parts: a rank's share of each micro-batch.

The parts' losses are such that their mean over ranks and micro-batches is the loss of all samples taken together.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.bevdet.detector import BevDet, FrameGeometry
from models.depth_bins import NO_LABEL, depth_loss
from tasks.batches.detector import Batch
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals.goal import goal_of
from tasks.training.ranks import rank_count, weights_of_parts


class Whole(nn.Module):
    """A detector and its head in one call, as training on several ranks wants it."""

    def __init__(self, detector: BevDet):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, cameras: tuple[FrameGeometry, ...], with_previous: bool) -> tuple[Any, Tensor]:
        """The head's maps in float32, and depth probabilities (B, N, D, h, w)."""
        bev, depth_prob = self.detector(images, cameras, with_previous)
        maps = self.detector.head(bev)
        if isinstance(maps, Tensor):
            return maps.float(), depth_prob
        return [{name: tensor.float() for name, tensor in group.items()} for group in maps], depth_prob


class Part(NamedTuple):
    """A rank's share of a micro-batch, on the device."""

    batch: Batch
    weights: dict[str, Tensor]  # term -> how much this part's mean counts


class Objective:
    """The loss whose mean over parts and ranks is that of the step's samples taken together.

    Each term is a mean over what there is to learn from (peaks of a heatmap, boxes, cells that LiDAR hit), of which
    each part has another number: its mean counts as much as it has of them.
    """

    def __init__(self, config: FinetuneConfig, detector: BevDet, network: nn.Module, device: torch.device):
        self.config, self.detector, self.network, self.device = config, detector, network, device
        self.goal = goal_of(config)

    def parts(self, batches: list[Batch]) -> list[Part]:
        """A rank's batches of one step, moved; called on all ranks."""
        moved = [batch.to(self.device) for batch in batches]
        if rank_count() == len(moved) == 1:
            return [Part(moved[0], {})]
        counts = [self._counts(batch) for batch in moved]
        weights = weights_of_parts(torch.stack([torch.stack(list(c.values())) for c in counts]).float())
        return [Part(batch, dict(zip(counts[0], row))) for batch, row in zip(moved, weights)]

    def terms(self, part: Part) -> dict[str, Tensor]:
        """The weighted losses of a part: the head's, and depth where it is supervised."""
        batch = part.batch
        cameras = self.detector.geometry(batch.cameras)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            predictions, depth_prob = self.network(batch.normalised(), cameras, batch.with_previous)
        terms = self.goal.loss(self.detector.head, predictions, batch.boxes, batch.truth)
        if batch.depth_labels is not None:
            terms["depth"] = self.config.depth_weight * depth_loss(depth_prob, batch.depth_labels)
        return {name: term * part.weights.get(name, 1.0) for name, term in terms.items()}

    def _counts(self, batch: Batch) -> dict[str, Tensor]:
        """By how many each term's sum is divided."""
        counts = self.goal.counts(self.detector.head, batch.boxes, batch.truth)
        if batch.depth_labels is not None:
            counts["depth"] = (batch.depth_labels != NO_LABEL).sum()
        return counts
