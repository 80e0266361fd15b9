"""Where one can drive and where vehicles stand, cell by cell: IoU against the map and the annotations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batches.bev_masks import BevMasks
from batches.detector import Truth
from evaluation import table
from evaluation.map_picture import draw_listed, mask_image
from evaluation.segmentation import SegmentationScore
from models.boxes import Boxes
from models.names import BEV_LAYERS
from models.norm import Norm
from models.segmentation_head import SegmentationHead
from storage.index import Index
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.finetune.goals.goal import SampleResult
from tasks.finetune.goals.map_goal import MapGoal
from tasks.finetune.goals.tally import Tally, tallied


class Segmentation(MapGoal):
    """See `Goal`. Truth: masks (B, L, Y, X) bool of names.BEV_LAYERS."""

    listing = "segmentations.json"
    title = "Bird's-eye-view segmentation"

    def __init__(self, config: FinetuneConfig, index: Index, dataroot: Path, evaluate: EvaluateConfig):
        super().__init__(config, index, dataroot, evaluate)
        self._masks = BevMasks(index, dataroot, config.bev_range, config.bev_cell)

    @staticmethod
    def head(config: FinetuneConfig, evaluate: EvaluateConfig) -> SegmentationHead:
        return SegmentationHead(config.bev_width, config.head_width, Norm(momentum=config.norm_momentum))

    def truth(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        return (torch.from_numpy(self._masks.read(sample, scene))[None],)

    @staticmethod
    def loss(head: SegmentationHead, predictions: Tensor, learnt: Truth) -> dict[str, Tensor]:
        return head.loss(predictions, *learnt)

    @staticmethod
    def counts(head: SegmentationHead, learnt: Truth) -> dict[str, Tensor]:
        (masks,) = learnt
        return {name: masks.new_full((), masks[:, 0].numel(), dtype=torch.int64) for name in BEV_LAYERS}

    def collected(self, results: Iterator[SampleResult]) -> Tally:
        config = self._config
        return tallied(results, lambda: SegmentationScore(config.bev_range, config.bev_cell), self._evaluate.pictures)

    def draw(self, collected: Tally, folder: Path) -> None:
        pictures = []
        for mean, sample, probabilities in collected.worst:
            tiles = {"true": mask_image(self._masks.read(sample)), "predicted": mask_image(probabilities >= 0.5)}
            pictures.append((sample, tiles, {"mIoU": mean}))
        draw_listed(folder, self.listing, self._index, self._dataroot, pictures, self._config.bev_range)

    @staticmethod
    def table(result: dict) -> str:
        columns = list(next(iter(result["layers"].values())))
        lines = {name: [layer[column] for column in columns] for name, layer in result["layers"].items()}
        return table.plain(["layer", *columns], lines)
