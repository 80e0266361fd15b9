"""What a step of fitting the LiDAR detector minimises."""

import numpy as np
from torch import Tensor

from batches.voxels import LidarBatch, LidarBatches
from models.lidar.detector import LidarDetector
from tasks.teacher.config import FitConfig
from training.order import parts_at
from training.ranks import distribute
from training.speed import autocast
from training.task import Term


class LidarTask:
    """The head's losses. A `training.task.Task`.

    samples: rows of the index to draw from.
    """

    def __init__(self, config: FitConfig, detector: LidarDetector, batches: LidarBatches, samples: np.ndarray):
        self.config, self.detector, self.batches, self.samples = config, detector, batches, samples
        self.network = distribute(detector)

    def load(self, step: int) -> list[LidarBatch]:
        parts = parts_at(step, self.config.batch_size, self.config.accumulate)
        return [self.batches.training_at(positions, self.samples) for positions in parts]

    def counts(self, batch: LidarBatch) -> dict[str, Tensor]:
        return self.detector.head.counts(batch.boxes)

    def terms(self, batch: LidarBatch) -> list[Term]:
        with autocast(self.config.precision, batch.voxels.means.device):
            predictions = self.network(batch.voxels)
        return [Term(name, 1.0, loss) for name, loss in self.detector.head.loss(predictions, batch.boxes).items()]

    def evaluate(self, steps: int) -> dict[str, float]:
        """Nothing: the detector is scored when it is whole."""
        return {}
