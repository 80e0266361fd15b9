"""What the goals whose truth is a map have in common: a mean IoU, counted over all samples of val."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batches.detector import Truth
from models.boxes import Boxes
from storage.index import Index
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.finetune.goals.tally import Tally


class MapGoal:
    """See `Goal`."""

    scores: tuple[str, ...] = ("mIoU",)

    def __init__(self, config: FinetuneConfig, index: Index, dataroot: Path, evaluate: EvaluateConfig):
        self._config, self._index, self._dataroot, self._evaluate = config, index, dataroot, evaluate

    @staticmethod
    def split(index: Index) -> str:
        return "val"

    @staticmethod
    def unscored(index: Index) -> str:
        return "The val split has no samples, so nothing is scored."

    def truth(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        raise NotImplementedError

    def learnt(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        return self.truth(sample, scene, boxes)

    def evaluate(self, collected: Tally, folder: Path) -> dict | None:
        return collected.score.result() if collected.score.samples else None

    @staticmethod
    def pictured(entry: Mapping[str, Any]) -> dict[str, str]:
        return {"mIoU": f"{entry['mIoU']:.4f}"}
