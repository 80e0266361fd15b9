"""Pretraining's batches: six images, their cameras, the teacher's BEV, LiDAR depth and the halves to mask.

The BEV travels as its active cells, a sixth of the map or so, and becomes a map on the device.

A scene mirrored at random has the BEV that the teacher makes of mirrored points, if the store keeps those (`flips` in
its attributes); else the BEV of the points as they are, mirrored. The two differ: a voxel grid has no symmetry.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.files import of_sample
from models import geometry
from models.bev import flip_cells, scatter_cells
from models.cameras import Cameras
from models.masking import draw_halves
from storage.bev import BevReader, Cells
from storage.depth import DepthReader
from storage.index import Index
from tasks.batches.depth_maps import nearest_depths
from tasks.batches.image_config import ImageConfig
from tasks.batches.images import draw_test, draw_training, load_image, normalise, post_homography
from tasks.pretrain.config import PretrainConfig
from tasks.training.order import MASKS, generator_at, sample_at


class PretrainBatch(NamedTuple):
    tokens: list[str]
    images: Tensor  # (B, N, H, W, 3) uint8
    cameras: Cameras
    groups: Tensor  # (1 or B * N, H/32, W/32), see models.masking
    depth_map: Tensor  # (B, N, H/16, W/16) m, the nearest point of each cell, 0 where there is none
    bev_index: Tensor  # (n,) int64 active cells of the teacher's maps, see models.bev.scatter_cells
    bev_values: Tensor  # (n, C) float16
    bev_shape: tuple[int, int, int]  # C, X, Y

    def to(self, device: torch.device) -> "PretrainBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "PretrainBatch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "PretrainBatch":
        def made(value):
            return function(value) if isinstance(value, Tensor) else value

        return PretrainBatch(*map(made, self))._replace(cameras=self.cameras.each(function))

    def lidar_bev(self) -> Tensor:
        """(B, C, X, Y) float16, made on the device where the batch is."""
        return scatter_cells(self.bev_index, self.bev_values, len(self.images), self.bev_shape)

    def normalised_images(self) -> Tensor:
        """(B, N, 3, H, W) float32."""
        return normalise(self.images)


class PretrainBatches:
    """Makes batches out of the three caches and the images. Safe to call from several threads, and to pickle."""

    def __init__(self, config: PretrainConfig, dataroot: Path, index: Index, bev: BevReader, depth: DepthReader):
        self.config, self.dataroot, self.index, self.bev, self.depth = config, dataroot, index, bev, depth

    def training_at(self, positions: range, samples: np.ndarray) -> PretrainBatch:
        """What stands at `positions` of a training on `samples` (see tasks/training/order.py), augmented.

        positions: a step's, or a rank's or a micro-batch's share of them. What is random about a sample follows from
        the seed and its position; so do its masks, or from the seed and the step where the step shares them.
        """
        config = self.config
        chosen, made = [sample_at(position, samples, config.seed) for position in positions], []
        for position, sample in zip(positions, chosen):
            generator = generator_at(position, config.seed)
            flip = generator.integers(0, 2, 2).astype(bool) & config.bev_flip
            made.append(self._sample(sample, generator, flip))
        places = [positions[0] // config.batch_size] if config.mask_shared else positions
        seeds = [int(generator_at(place, config.seed, MASKS).integers(2**62)) for place in places]
        return self._collate(chosen, made, torch.cat([self._groups(1, seed) for seed in seeds]))

    def held_out(self, samples: np.ndarray) -> PretrainBatch:
        """The same samples without augmentation, each with masks that are always its own."""
        made = [self._sample(s, None, np.zeros(2, bool)) for s in samples]
        return self._collate(samples, made, self._groups(len(samples), int(samples[0])))

    def _sample(self, sample: int, generator: np.random.Generator | None, flip: np.ndarray) -> tuple:
        """Images, the fields of Cameras, depth maps: arrays; and the teacher's Cells."""
        index, config = self.index, self.config
        mirror = np.diag([*np.where(flip, -1.0, 1.0), 1.0, 1.0])
        points = self.depth.read(sample)
        images, posts, maps = [], [], []
        for camera in range(len(index.cameras)):
            image, post = self._image(sample, camera, generator, config.image)
            images.append(image)
            posts.append(post)
            u, v, depth = points.camera(camera, config.depth_sweeps)
            maps.append(nearest_depths(u, v, depth, post, config.image.size, config.backbone.strides[2]))
        mounting = index.camera_to_ego[sample]
        frame = index.intrinsics[sample], np.stack(posts), camera_to_key_lidar(index, sample)  # of one frame
        cameras = *(matrices[None] for matrices in frame), mounting, mirror
        return np.stack(images), *cameras, np.stack(maps), self._cells(sample, *flip)

    def _cells(self, sample: int, flip_x: bool, flip_y: bool) -> Cells:
        name = ("x" if flip_x else "") + ("y" if flip_y else "") or "none"
        if name in self.bev.attributes.flips:
            return self.bev.cells(sample, name)
        index, values = self.bev.cells(sample)
        return Cells(flip_cells(index, self.bev.shape[1:], flip_x, flip_y), values)

    def _image(
        self, sample: int, camera: int, generator: np.random.Generator | None, config: ImageConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        source = tuple(self.index.image_size[sample, camera].tolist())
        draw = draw_test(config, source) if generator is None else draw_training(config, source, generator)
        path = self.dataroot / str(self.index.camera_path[sample, camera])
        with of_sample(self.index.token[sample]):
            return load_image(path, draw, config.size, source), post_homography(draw, config.size)

    def _groups(self, samples: int, seed: int) -> Tensor:
        """Random halves of the tokens of so many samples: (1, H/32, W/32) if shared, else one for each image."""
        c = self.config
        generator = torch.Generator().manual_seed(seed)
        groups = draw_halves(samples * len(self.index.cameras), c.mask_grid, generator, c.mask_ratio, c.mask_shared)
        cells = c.mask_cell // c.backbone.strides[-1]
        return groups.repeat_interleave(cells, 1).repeat_interleave(cells, 2)

    def _collate(self, samples: Sequence[int], made: list[tuple], groups: Tensor) -> PretrainBatch:
        *arrays, bev = zip(*made)
        images, *cameras, maps = map(np.stack, arrays)
        _, x, y = self.bev.shape
        bev_index = np.concatenate([b * x * y + index.astype(np.int64) for b, (index, _) in enumerate(bev)])
        return PretrainBatch(
            [str(self.index.token[s]) for s in samples],
            torch.from_numpy(images),
            Cameras(*map(torch.from_numpy, cameras)),
            groups,
            torch.from_numpy(maps),
            torch.from_numpy(bev_index),
            torch.from_numpy(np.concatenate([values for _, values in bev])),
            self.bev.shape,
        )


def camera_to_key_lidar(index: Index, sample: int) -> np.ndarray:
    """(N, 4, 4) of every camera to the sample's LIDAR_TOP frame, through the ego's poses at both times."""
    return geometry.inverse(index.lidar_to_global(sample)) @ index.camera_to_global(sample)
