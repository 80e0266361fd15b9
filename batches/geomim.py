"""GeoMIM's batches: a sample's images, their cameras, the teacher's BEV, LiDAR depth and the halves to mask.

The BEV travels as its active cells, a sixth of the map or so, and becomes a map on the device.

A scene mirrored at random has the BEV that the teacher makes of mirrored points, if the store keeps those (`flips` in
its attributes); else the BEV of the points as they are, mirrored. The two differ: a voxel grid has no symmetry.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from batches.depth_maps import depth_target
from batches.images import normalise
from batches.masked import MaskedImages
from models import geometry
from models.bev import flip_cells, scatter_cells
from models.cameras import Cameras
from storage.bev import BevReader, Cells
from storage.depth import DepthReader
from storage.index import Index
from training.order import generator_at, sample_at


class GeoMIMBatch(NamedTuple):
    tokens: list[str]
    images: Tensor  # (B, N, H, W, 3) uint8
    cameras: Cameras
    groups: Tensor  # (1 or B * N, H/32, W/32), see models.masking
    depth_map: Tensor  # (B, N, H/16, W/16) m, the nearest point of each cell, 0 where there is none
    bev_index: Tensor  # (n,) int64 active cells of the teacher's maps, see models.bev.scatter_cells
    bev_values: Tensor  # (n, C) float16
    bev_shape: tuple[int, int, int]  # C, X, Y

    def to(self, device: torch.device) -> "GeoMIMBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "GeoMIMBatch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "GeoMIMBatch":
        return self._replace(
            images=function(self.images),
            cameras=self.cameras.each(function),
            groups=function(self.groups),
            depth_map=function(self.depth_map),
            bev_index=function(self.bev_index),
            bev_values=function(self.bev_values),
        )

    def lidar_bev(self) -> Tensor:
        """(B, C, X, Y) float16, made on the device where the batch is."""
        return scatter_cells(self.bev_index, self.bev_values, len(self.images), self.bev_shape)

    def normalised_images(self) -> Tensor:
        """(B, N, 3, H, W) float32."""
        return normalise(self.images)


class GeoMIMData(Protocol):
    """The fields of GeoMIM's config that its batches depend on."""

    @property
    def depth_sweeps(self) -> int: ...
    @property
    def bev_flip(self) -> bool: ...


class GeoMIMBatches:
    """Makes batches out of the three caches and the images. Safe to call from several threads, and to pickle."""

    def __init__(self, masked: MaskedImages, config: GeoMIMData, bev: BevReader, depth: DepthReader):
        self.masked, self.config, self.bev, self.depth = masked, config, bev, depth
        self.index, self.image_size = masked.index, masked.config.image.size
        self.stride = masked.config.backbone.strides[2]  # of the map that is lifted

    def training_at(self, positions: range, samples: np.ndarray) -> GeoMIMBatch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented.

        positions: a step's, or a rank's or a micro-batch's share of them. What is random about a sample follows from
        the seed and its position.
        """
        seed = self.masked.config.seed
        chosen = [sample_at(position, samples, seed) for position in positions]
        images, items = self.masked.empty(len(chosen)), []
        for position, sample, out in zip(positions, chosen, images):
            generator = generator_at(position, seed)
            flip = generator.integers(0, 2, 2).astype(bool) & self.config.bev_flip
            items.append(self._sample(sample, generator, flip, out))
        return self._collate(chosen, images, items, self.masked.training_groups(positions))

    def held_out(self, samples: np.ndarray) -> GeoMIMBatch:
        """The same samples without augmentation, each with masks that are always its own."""
        images = self.masked.empty(len(samples))
        items = [self._sample(s, None, np.zeros(2, bool), out) for s, out in zip(samples, images)]
        return self._collate(samples, images, items, self.masked.held_out_groups(samples))

    def _sample(self, sample: int, generator: np.random.Generator | None, flip: np.ndarray, out: np.ndarray) -> tuple:
        """Images go to `out`. The fields of Cameras and depth maps: arrays; and the teacher's Cells."""
        index = self.index
        mirror = np.diag([*np.where(flip, -1.0, 1.0), 1.0, 1.0])
        posts = self.masked.images(sample, generator, out)
        target = partial(depth_target, sweeps=self.config.depth_sweeps, size=self.image_size, stride=self.stride)
        maps = [target(points, post_homography=post) for points, post in zip(self.depth.read_cameras(sample), posts)]
        frame = index.intrinsics[sample], posts, camera_to_key_lidar(index, sample)  # of one frame
        cameras = *(matrices[None] for matrices in frame), index.camera_to_ego[sample], mirror
        return *cameras, np.stack(maps), self._cells(sample, *flip)

    def _cells(self, sample: int, flip_x: bool, flip_y: bool) -> Cells:
        name = ("x" if flip_x else "") + ("y" if flip_y else "") or "none"
        if name in self.bev.attributes.flips:
            return self.bev.cells(sample, name)
        index, values = self.bev.cells(sample)
        return Cells(flip_cells(index, self.bev.shape[1:], flip_x, flip_y), values)

    def _collate(
        self, samples: Sequence[int] | np.ndarray, images: np.ndarray, items: list[tuple], groups: Tensor
    ) -> GeoMIMBatch:
        *arrays, bev = zip(*items)
        *cameras, maps = map(np.stack, arrays)
        _, x, y = self.bev.shape
        bev_index = np.concatenate([b * x * y + index.astype(np.int64) for b, (index, _) in enumerate(bev)])
        values = [values for _, values in bev]
        return GeoMIMBatch(
            [str(self.index.token[s]) for s in samples],
            torch.from_numpy(images),
            Cameras(*map(torch.from_numpy, cameras)),
            groups,
            torch.from_numpy(maps),
            torch.from_numpy(bev_index),
            torch.from_numpy(np.concatenate(values) if len(values) > 1 else np.ascontiguousarray(values[0])),
            self.bev.shape,
        )


def camera_to_key_lidar(index: Index, sample: int) -> np.ndarray:
    """(N, 4, 4) of every camera to the sample's LIDAR_TOP frame, through the ego's poses at both times."""
    return geometry.inverse(index.lidar_to_global(sample)) @ index.camera_to_global(sample)
