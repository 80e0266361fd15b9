"""Boxes: CenterPoint's head, the official nuScenes evaluation, pictures of missed and false boxes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from batches.detector import Truth
from batches.frames import boxes_in_lidar
from evaluation import table
from evaluation.official import evaluate as scored
from evaluation.official import evaluation_split, unscored
from evaluation.picture import PICTURES, draw_worst
from models import center_targets, nms
from models.boxes import Boxes
from models.center_codes import Targets
from models.center_head import CenterPointHead, Predictions
from models.center_spec import ONE_GROUP, SIX_GROUPS, CenterHeadSpec, code_weights
from models.norm import Norm
from storage.index import Index
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.finetune.goals.goal import SampleResult
from training.ranks import gathered


class Detection:
    """See `Goal`."""

    scores: tuple[str, ...] = ("mAP", "NDS")
    listing = PICTURES
    title = "Camera detector"

    def __init__(self, config: FinetuneConfig, index: Index, dataroot: Path, evaluate: EvaluateConfig):
        self._config, self._index, self._dataroot, self._evaluate = config, index, dataroot, evaluate
        self._spec = head_spec(config, evaluate)

    @staticmethod
    def head(config: FinetuneConfig, evaluate: EvaluateConfig) -> CenterPointHead:
        return CenterPointHead(head_spec(config, evaluate))

    @staticmethod
    def split(index: Index) -> str:
        return evaluation_split(index)

    @staticmethod
    def unscored(index: Index) -> str:
        return unscored(index, evaluation_split(index))

    def truth(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        return ()

    def learnt(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        """Each class group's `Targets`, one after the other."""
        return tuple(part for group in center_targets.learnt(self._spec, boxes) for part in group)

    @staticmethod
    def loss(head: CenterPointHead, predictions: Predictions, learnt: Truth) -> dict[str, Tensor]:
        return head.losses(predictions, _groups(learnt))

    @staticmethod
    def counts(head: CenterPointHead, learnt: Truth) -> dict[str, Tensor]:
        return head.counts_of(_groups(learnt))

    def collected(self, results: Iterator[SampleResult]) -> dict[int, Boxes]:
        """The boxes of each sample, in its LIDAR_TOP frame, best first."""
        own = {}
        for sample, boxes, _ in results:
            own[sample] = boxes_in_lidar(self._index, sample, boxes, self._config.view.key_ego)
        return {sample: boxes for share in gathered(own) for sample, boxes in share.items()}

    def evaluate(self, collected: dict[int, Boxes], folder: Path) -> dict | None:
        return scored(self._index, self._dataroot, collected, self.split(self._index), folder, use_camera=True)

    def draw(self, collected: dict[int, Boxes], folder: Path) -> None:
        draw_worst(folder, self._index, self._dataroot, collected, self._evaluate.pictures)

    @staticmethod
    def table(result: dict) -> str:
        return table.markdown(result)

    @staticmethod
    def pictured(entry: Mapping[str, Any]) -> dict[str, str]:
        kinds = ("missed", "false")
        return {kind: ", ".join(f"{n} {name}" for name, n in entry[kind].items()) or "-" for kind in kinds}


def head_spec(config: FinetuneConfig, evaluate: EvaluateConfig) -> CenterHeadSpec:
    """The head of a finetuning, and which of its predictions count."""
    six = config.class_groups == "six"
    rotated = nms.BEVDET_STEREO if six else nms.BEVDET
    span, height = config.bev_range, config.height
    return CenterHeadSpec(
        config.bev_width,
        (-span, -span, height[0], span, span, height[1]),
        (config.bev_cell, config.bev_cell),
        SIX_GROUPS if six else ONE_GROUP,
        config.head_width,
        norm=Norm(momentum=config.norm_momentum),
        score_threshold=evaluate.score_threshold,
        rules=rotated if evaluate.nms == "rotated" else nms.centerpoint(evaluate.nms_radius),
        min_radius=config.gaussian_radius,
        code_weights=code_weights(config.velocity_weight),
        velocity_squared=config.velocity_loss == "squared",
    )


def _groups(learnt: Truth) -> list[Targets]:
    size = len(Targets._fields)
    return [Targets(*learnt[i : i + size]) for i in range(0, len(learnt), size)]
