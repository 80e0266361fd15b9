"""Pretraining's batches: six images, their cameras, the teacher's BEV, LiDAR depth and the halves to mask.

The BEV travels as its active cells, a sixth of the map or so, and becomes a map on the device.

A scene mirrored at random has the BEV that the teacher makes of mirrored points, if the store keeps those (`flips` in
its attributes); else the BEV of the points as they are, mirrored. The two differ: a voxel grid has no symmetry.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import geometry
from models.bev import flip_cells, scatter_cells
from models.geomim.view_transform import Cameras
from models.masking import draw_halves
from storage.bev import BevReader, Cells
from storage.depth import DepthReader
from storage.index import Index
from tasks.backbone import STRIDE
from tasks.batches.depth_maps import depth_map
from tasks.batches.images import ImageConfig, draw_test, draw_training, load_image, normalise, post_homography
from tasks.pretrain.config import PretrainConfig


class PretrainBatch(NamedTuple):
    tokens: list[str]
    images: Tensor  # (B, N, H, W, 3) uint8
    cameras: Cameras
    groups: Tensor  # (1 or B * N, H/32, W/32), see models.masking
    depth_map: Tensor  # (B, N, H, W) m, 0 where unknown
    bev_index: Tensor  # (n,) int64 active cells of the teacher's maps, see models.bev.scatter_cells
    bev_values: Tensor  # (n, C) float16
    bev_shape: tuple[int, int, int]  # C, X, Y

    def to(self, device: torch.device) -> "PretrainBatch":
        def moved(value):
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return PretrainBatch(*map(moved, self))._replace(cameras=Cameras(*map(moved, self.cameras)))

    def lidar_bev(self) -> Tensor:
        """(B, C, X, Y) float16, made on the device where the batch is."""
        return scatter_cells(self.bev_index, self.bev_values, len(self.images), self.bev_shape)

    def normalised_images(self) -> Tensor:
        """(B, N, 3, H, W) float32."""
        return normalise(self.images)


class PretrainBatches:
    """Makes batches out of the three caches and the images. Safe to call from a thread."""

    def __init__(self, config: PretrainConfig, dataroot: Path, index: Index, bev: BevReader, depth: DepthReader):
        self.config, self.dataroot, self.index, self.bev, self.depth = config, dataroot, index, bev, depth

    def training(self, samples: np.ndarray, generator: np.random.Generator) -> PretrainBatch:
        """Augmented samples; all that is random comes from `generator`."""
        flips = [generator.integers(0, 2, 2).astype(bool) & self.config.bev_flip for _ in samples]
        made = [self._sample(s, generator, flip) for s, flip in zip(samples, flips)]
        return self._collate(samples, made, int(generator.integers(2**62)))

    def held_out(self, samples: np.ndarray) -> PretrainBatch:
        """The same samples without augmentation, each with masks that are always its own."""
        made = [self._sample(s, None, np.zeros(2, bool)) for s in samples]
        return self._collate(samples, made, int(samples[0]))

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
            maps.append(depth_map(u, v, depth, post, config.image.size))
        camera_to_lidar = mirror @ camera_to_key_lidar(index, sample)
        cameras = (index.intrinsics[sample], np.stack(posts), camera_to_lidar, index.camera_to_ego[sample])
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
        return load_image(path, draw, config.size, source), post_homography(draw, config.size)

    def _collate(self, samples: np.ndarray, made: list[tuple], seed: int) -> PretrainBatch:
        *arrays, bev = zip(*made)
        images, *cameras, maps = map(np.stack, arrays)
        _, x, y = self.bev.shape
        bev_index = np.concatenate([b * x * y + index.astype(np.int64) for b, (index, _) in enumerate(bev)])
        generator = torch.Generator().manual_seed(seed)
        c = self.config
        views = images.shape[0] * images.shape[1]
        groups = draw_halves(views, c.mask_grid, generator, c.mask_ratio, c.mask_shared)
        cells = c.mask_cell // STRIDE
        return PretrainBatch(
            [str(self.index.token[s]) for s in samples],
            torch.from_numpy(images),
            Cameras(*(torch.from_numpy(c).float() for c in cameras)),
            groups.repeat_interleave(cells, 1).repeat_interleave(cells, 2),
            torch.from_numpy(maps),
            torch.from_numpy(bev_index),
            torch.from_numpy(np.concatenate([values for _, values in bev])),
            self.bev.shape,
        )


def camera_to_key_lidar(index: Index, sample: int) -> np.ndarray:
    """(N, 4, 4) of every camera to the sample's LIDAR_TOP frame, through the ego's poses at both times."""
    to_global = index.camera_ego_to_global[sample] @ index.camera_to_ego[sample]
    lidar_to_global = index.lidar_ego_to_global[sample] @ index.lidar_to_ego[sample]
    return geometry.inverse(lidar_to_global) @ to_global
