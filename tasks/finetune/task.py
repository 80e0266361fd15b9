"""What a step of finetuning minimises."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from batches.detector import Batch, Batches
from models.bevdet.detector import BevDet, FrameGeometry
from models.depth_bins import NO_LABEL, depth_loss
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals import goal_of
from training.order import parts_at
from training.speed import autocast, trained
from training.task import Term


class WithHead(nn.Module):
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


class DetectorTask:
    """The head's losses, and depth's where it is supervised. A `training.task.Task`.

    samples: rows of the index to draw from.
    """

    def __init__(self, config: FinetuneConfig, detector: BevDet, batches: Batches, samples: np.ndarray):
        self.config, self.detector, self.batches, self.samples = config, detector, batches, samples
        self.goal, self.network = goal_of(config), trained(WithHead(detector), config)

    def load(self, step: int) -> list[Batch]:
        parts = parts_at(step, self.config.batch_size, self.config.accumulate)
        return [self.batches.training_at(positions, self.samples) for positions in parts]

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = self.goal.counts(self.detector.head, batch.truth)
        if batch.depth_labels is not None:
            counts["depth"] = (batch.depth_labels != NO_LABEL).sum()
        return counts

    def terms(self, batch: Batch) -> list[Term]:
        cameras = self.detector.geometry(batch.cameras)
        with autocast(self.config.precision, batch.images.device):
            predictions, depth_prob = self.network(batch.normalised(), cameras, batch.with_previous)
        losses = self.goal.loss(self.detector.head, predictions, batch.truth)
        terms = [Term(name, 1.0, loss) for name, loss in losses.items()]
        if batch.depth_labels is not None:
            terms.append(Term("depth", self.config.depth_weight, depth_loss(depth_prob, batch.depth_labels)))
        return terms

    def evaluate(self, steps: int) -> dict[str, float]:
        """Nothing: that is stage `evaluate`'s."""
        return {}
