"""The LiDAR detector's batches: voxels of several clouds, and the boxes in them."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from batches.lidar import LidarAugmentation, augmented, pasted, sample_boxes
from common.errors import DataError
from dataroot.points import load_points
from models.boxes import Boxes
from models.lidar.detector import VoxelBatch, voxel_batch
from models.lidar.grid import VoxelGrid
from storage.index import Index
from training.order import generator_at, sample_at


class LidarBatch(NamedTuple):
    """B clouds and their boxes, in the (augmented) LIDAR_TOP frame."""

    voxels: VoxelBatch
    boxes: list[Boxes]
    tokens: list[str]  # of all samples that are in it, those of pasted objects too

    def to(self, device: torch.device) -> "LidarBatch":
        return self._replace(voxels=self.voxels.to(device))

    def pinned(self) -> "LidarBatch":
        means, coords, size = self.voxels
        return self._replace(voxels=VoxelBatch(means.pin_memory(), coords.pin_memory(), size))


class Cloud(Protocol):
    """The part of `LidarConfig` that says how a sample's points become voxels."""

    @property
    def sweeps(self) -> int: ...
    @property
    def grid(self) -> VoxelGrid: ...


class LidarData(Protocol):
    """The fields of a LiDAR detector's config that its batches depend on."""

    @property
    def lidar(self) -> Cloud: ...
    @property
    def min_lidar_points(self) -> int: ...
    @property
    def paste(self) -> int: ...
    @property
    def flip(self) -> bool: ...
    @property
    def rotation(self) -> float: ...
    @property
    def scale(self) -> float: ...
    @property
    def seed(self) -> int: ...


class LidarBatches:
    """Prepares batches. Safe to call from several threads."""

    def __init__(self, config: LidarData, index: Index, dataroot: Path):
        self.config, self.index, self.dataroot = config, index, dataroot
        self.augmentation = LidarAugmentation(config.flip, config.rotation, config.scale)

    def training_at(self, positions: range, samples: np.ndarray) -> LidarBatch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented.

        What is random about a sample follows from the seed and its position. Raises DataError where all points of the
        batch are in one voxel.
        """
        clouds, boxes, used = [], [], []
        for position in positions:
            sample, random = sample_at(position, samples, self.config.seed), generator_at(position, self.config.seed)
            points, truth, others = self._sample(sample, samples, random)
            points, truth = augmented(points, truth, self.augmentation.draw(random))
            clouds.append(torch.from_numpy(points))
            boxes.append(truth)
            used += [sample, *others]
        tokens = [str(self.index.token[sample]) for sample in dict.fromkeys(used)]
        batch = LidarBatch(voxel_batch(clouds, self.config.lidar.grid), boxes, tokens)
        if len(batch.voxels.means) == 1:
            raise DataError(
                f"fit: {', '.join(batch.tokens)}: a single voxel of lidar.range has points in it, of which batch "
                "normalisation has no statistics; name the sample in ingest.leave_out, or widen lidar.range"
            )
        return batch

    def evaluation(self, sample: int) -> VoxelBatch:
        """One sample's voxels, nothing random."""
        points = load_points(self.index, self.dataroot, sample, self.config.lidar.sweeps)
        return voxel_batch([torch.from_numpy(points)], self.config.lidar.grid)

    def _sample(
        self, sample: int, samples: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, Boxes, list[int]]:
        """Points, boxes, and the samples whose objects were pasted among them."""
        points, boxes = self._read(sample)
        if not self.config.paste:
            return points, boxes, []
        other = int(random.choice(samples))
        together = pasted(points, boxes, *self._read(other), self.config.paste, random)
        return *together, [other] if len(together[1]) > len(boxes) else []

    def _read(self, sample: int) -> tuple[np.ndarray, Boxes]:
        points = load_points(self.index, self.dataroot, sample, self.config.lidar.sweeps)
        return points, sample_boxes(self.index, sample, self.config.min_lidar_points)
