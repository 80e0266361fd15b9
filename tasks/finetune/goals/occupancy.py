"""What every voxel holds: mIoU against Occ3D's labels where a camera sees them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batches.detector import Truth
from batches.occupancy import read_occupancy
from evaluation import table
from evaluation.map_picture import draw_listed, voxel_image
from evaluation.occupancy import OccupancyScore
from models.boxes import Boxes
from models.names import FREE, OCCUPANCY_CLASSES
from models.occupancy import RANGE
from models.occupancy_head import OccupancyHead
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.finetune.goals.goal import SampleResult
from tasks.finetune.goals.map_goal import MapGoal
from tasks.finetune.goals.tally import Tally, tallied


class VoxelOccupancy(MapGoal):
    """See `Goal`. Truth: labels (B, X, Y, Z) uint8 of names.OCCUPANCY_CLASSES, and which are in view, bool."""

    listing = "occupancies.json"
    title = "Camera occupancy"

    @staticmethod
    def head(config: FinetuneConfig, evaluate: EvaluateConfig) -> OccupancyHead:
        return OccupancyHead(config.bev_width, config.head_width)

    def truth(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        """The config lets a scene be mirrored, and nothing else: labels stay on their grid."""
        occupancy = read_occupancy(self._index, self._dataroot, sample)
        flipped = occupancy.flipped(bool(scene[0, 0] < 0), bool(scene[1, 1] < 0))
        return tuple(torch.from_numpy(array.copy())[None] for array in flipped)

    @staticmethod
    def loss(head: OccupancyHead, predictions: Tensor, learnt: Truth) -> dict[str, Tensor]:
        return head.loss(predictions, *learnt)

    @staticmethod
    def counts(head: OccupancyHead, learnt: Truth) -> dict[str, Tensor]:
        return {"occupancy": learnt[1].sum()}

    def collected(self, results: Iterator[SampleResult]) -> Tally:
        return tallied(results, OccupancyScore, self._evaluate.pictures)

    def draw(self, collected: Tally, folder: Path) -> None:
        pictures = []
        for mean, sample, predicted in collected.worst:
            labels, seen = read_occupancy(self._index, self._dataroot, sample)
            tiles = {"true": voxel_image(labels, seen), "predicted": voxel_image(predicted, seen)}
            pictures.append((sample, tiles, {"mIoU": mean}))
        draw_listed(folder, self.listing, self._index, self._dataroot, pictures, RANGE)

    @staticmethod
    def table(result: dict) -> str:
        lines = {name: [scores["IoU"], scores["voxels"]] for name, scores in result["classes"].items()}
        occupied = sum(voxels for name, (_, voxels) in lines.items() if name != OCCUPANCY_CLASSES[FREE])
        lines["mean without free"] = [result["mIoU"], occupied]
        return table.plain(["class", "IoU", "voxels in view"], lines)
