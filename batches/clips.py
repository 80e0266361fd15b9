"""Clips of camera frames with the rays to render: what MIM4D learns from (arXiv 2403.08760).

Frame 0 is the key frame; frame t of a camera is its t-th image before that. A frame's volume lies in the frame of the
LiDAR at that frame's own time, which is that of its first camera's image: LIDAR_TOP as it is mounted, on the ego as it
then stood. Every image has the calibration and the pose of its own time.

The points are the key sweep's, in every frame: a moving thing is found where it was then, 0.2 s off at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from batches.image_config import ImageConfig
from batches.images import draws_of, load_paths, normalise, post_homography
from batches.mask_config import mask_grid
from batches.rays import Box, View, draw_rays
from dataroot.points import read_cloud
from models import geometry
from models.backbones.build import BackboneConfig
from models.cameras import Cameras
from models.masking import draw_visible
from storage.index import Index
from training.order import MASKS, generator_at, sample_at

NEAR_CAR = 3.0  # m around the LiDAR, seen from above: points there are the car's own


class ClipBatch(NamedTuple):
    """B clips of T frames of N cameras. K frames of each are rendered, F = T - 1 are there to rebuild a frame from."""

    tokens: list[str]
    images: Tensor  # (B, T, N, H, W, 3) uint8
    cameras: Cameras  # of B * T samples of one frame: every camera into the LiDAR frame of its own frame
    there: Tensor  # (B, T, N) bool, whether the camera has this frame
    visible: Tensor  # (B * T * N, h, w) bool, cells that are not hidden
    target: Tensor  # (B, K) int64, the frames that are rendered; no ray is cast of one that is not there
    others: Tensor  # (B, K, F) int64, the other frames, latest first, those that are not there last
    others_there: Tensor  # (B, K, F) bool
    to_other: Tensor  # (B, K, F, 4, 4) float64, LiDAR frame of the target -> of the other
    origins: Tensor  # (B, K, N * R, 3) m, in the target's LiDAR frame
    directions: Tensor  # (B, K, N * R, 3) of length 1
    colours: Tensor  # (B, K, N * R, 3) from 0 to 1
    depths: Tensor  # (B, K, N * R) m along the ray, 0 where LiDAR says nothing
    cast: Tensor  # (B, K, N * R) bool; False fills up what has fewer rays
    pixels: Tensor  # (B, K, N * R, 3) camera, row and column in the network's input
    noise: Tensor  # (passes, B, K, N * R) from 0 to 1

    def to(self, device: torch.device) -> "ClipBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "ClipBatch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "ClipBatch":
        return ClipBatch(self.tokens, function(self.images), self.cameras.each(function), *map(function, self[3:]))

    def normalised_images(self) -> Tensor:
        """(B, T, N, 3, H, W) float32."""
        return normalise(self.images)


class ClipData(Protocol):
    """The fields of pretraining's config that clips depend on."""

    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def image(self) -> ImageConfig: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class ClipSpec:
    """What is hidden and what is rendered.

    frames: T. mask_ratio: share hidden of every image, in cells of mask_cell px. rays: of each camera and rendered
    frame. box: what they pass through. passes: of a renderer's sampling, each of which wants a random number a ray.
    """

    frames: int
    mask_ratio: float
    mask_cell: int
    rays: int
    box: Box
    passes: int = 2


class Clips:
    """Reads, augments, masks and casts rays. Safe to call from several threads, and to pickle."""

    def __init__(self, config: ClipData, spec: ClipSpec, index: Index, dataroot: Path):
        self.config, self.spec, self.index, self.dataroot = config, spec, index, dataroot
        stride = config.backbone.strides[-1]
        self.repeat = spec.mask_cell // stride  # tokens a side of what is hidden as one
        self.grid = mask_grid(spec.mask_cell, config.image.size, stride)

    def training_at(self, positions: range, samples: np.ndarray) -> ClipBatch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented."""
        seed = self.config.seed
        made = []
        for position in positions:
            sample, generator = sample_at(position, samples, seed), generator_at(position, seed)
            masks = int(generator_at(position, seed, MASKS).integers(2**62))
            made.append(self.clip(sample, generator, mask_seed=masks))
        return joined(made)

    def held_out(self, samples: Sequence[int]) -> ClipBatch:
        """These samples without augmentation; what is drawn (cells, rays) is the same whenever they are asked for."""
        return joined([self.clip(int(sample), None, mask_seed=int(sample)) for sample in samples])

    def clip(self, sample: int, generator: np.random.Generator | None, mask_seed: int) -> ClipBatch:
        """A batch of one. generator: of what is random about images, frames and rays; None: nothing is, of images."""
        spec, size = self.spec, self.config.image.size
        frames = frames_of(self.index, sample, spec.frames)
        draws = draws_of(self.index, sample, self.config.image, generator)
        posts = np.stack([post_homography(draw, size) for draw in draws])
        images = np.stack([load_paths(self.index, self.dataroot, sample, paths, draws, size) for paths in frames.paths])
        random = np.random.default_rng(mask_seed) if generator is None else generator

        target, target_there = draw_targets(frames.there.any(1), None if generator is None else random)
        others, others_there = others_of(target, frames.there.any(1))
        lidar_to_global = frames.lidar_to_global
        to_global, from_global = lidar_to_global[target][:, None], geometry.inverse(lidar_to_global)[others]
        points = self._points(sample)
        rays = []
        for t, rendered in zip(target, target_there):
            there = frames.there[t] & rendered
            here = geometry.apply(geometry.inverse(lidar_to_global[t]) @ lidar_to_global[0], points)
            whole = self._views(sample, frames, t, posts, images[t])
            views = [view if used else None for view, used in zip(whole, there)]
            rays.append(draw_rays(here, views, spec.rays, spec.box, random))
        masks = torch.Generator().manual_seed(mask_seed)
        visible = draw_visible(frames.there.size, self.grid, masks, spec.mask_ratio)
        visible = visible.repeat_interleave(self.repeat, 1).repeat_interleave(self.repeat, 2)
        cast = rays[0].cast.shape
        noise = random.random((spec.passes, len(target), *cast), np.float32)
        count, identity = len(images), np.eye(4)
        arrays = [
            frames.there,
            target,
            others,
            others_there,
            from_global @ to_global,
            *(np.stack(fields) for fields in zip(*rays)),
        ]
        there, *rest = (torch.from_numpy(np.ascontiguousarray(array))[None] for array in arrays)
        rest.append(torch.from_numpy(noise)[:, None])
        return ClipBatch(
            [str(self.index.token[sample])],
            torch.from_numpy(images)[None],
            Cameras(
                torch.from_numpy(frames.intrinsics)[:, None],
                torch.from_numpy(np.stack([posts] * count))[:, None],
                torch.from_numpy(frames.camera_to_lidar)[:, None],
                torch.from_numpy(frames.camera_to_ego),
                torch.from_numpy(np.stack([identity] * count)),
            ),
            there,
            visible,
            *rest,
        )

    def _views(self, sample: int, frames: "Frames", t: int, posts: np.ndarray, images: np.ndarray) -> list[View]:
        """The cameras of frame t."""
        sizes = self.index.image_size[sample]
        return list(map(View, frames.camera_to_lidar[t], frames.intrinsics[t], posts, sizes, images))

    def _points(self, sample: int) -> np.ndarray:
        """(n, 3) m float64 of the key sweep, without the car itself."""
        path = self.dataroot / str(self.index.lidar_path[sample])
        points = read_cloud(path, self.index.lidar_columns)[:, :3].astype(np.float64)
        return points[np.hypot(points[:, 0], points[:, 1]) > NEAR_CAR]


class Frames(NamedTuple):
    """T frames of a sample's N cameras; what a camera does not have is the key frame's, and not `there`."""

    paths: np.ndarray  # (T, N) str, "" where there is none
    there: np.ndarray  # (T, N) bool
    intrinsics: np.ndarray  # (T, N, 3, 3)
    camera_to_ego: np.ndarray  # (T, N, 4, 4)
    camera_to_lidar: np.ndarray  # (T, N, 4, 4), at its own time -> the LiDAR frame at the frame's
    lidar_to_global: np.ndarray  # (T, 4, 4)


def frames_of(index: Index, sample: int, count: int) -> Frames:
    """The key frame and the count - 1 camera frames before it, as far as there are such."""
    earlier = slice(0, count - 1)

    def lined_up(key: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """(T, N, ...) of the key frame's (N, ...) and earlier ones (N, F, ...)."""
        return np.concatenate([key[sample][None], frames[sample, :, earlier].swapaxes(0, 1)])

    there = np.arange(count)[:, None] <= index.frame_count[sample]
    paths = lined_up(index.camera_path, index.frame_path)
    matrices = (
        lined_up(index.intrinsics, index.frame_intrinsics),
        lined_up(index.camera_to_ego, index.frame_camera_to_ego),
        lined_up(index.camera_ego_to_global, index.frame_ego_to_global),
    )
    intrinsics, to_ego, to_global = (np.where(there[..., None, None], values, values[:1]) for values in matrices)
    first = np.where(there.any(1), there.argmax(1), 0)
    ego_to_global = to_global[np.arange(count), first]
    lidar_to_global = ego_to_global @ index.lidar_to_ego[sample]
    lidar_to_global[0] = index.lidar_to_global(sample)
    camera_to_lidar = geometry.inverse(lidar_to_global)[:, None] @ to_global @ to_ego
    return Frames(paths, there, intrinsics, to_ego, camera_to_lidar, lidar_to_global)


def draw_targets(there: np.ndarray, random: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are rendered (K,) and whether they exist (K,): the key frame, and one before it.

    there: (T,) bool. random: draws the second among those there are; None takes the first.
    """
    if len(there) == 1:
        return np.zeros(1, np.int64), np.ones(1, bool)
    earlier = np.flatnonzero(there[1:]) + 1
    if len(earlier) == 0:
        return np.array([0, 1]), np.array([True, False])
    chosen = earlier[0] if random is None else random.choice(earlier)
    return np.array([0, int(chosen)]), np.array([True, True])


def others_of(target: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, F) frames beside each target, the latest first but those that are not there last; and whether they are."""
    count = len(there)
    others = np.array([[t for t in range(count) if t != k] for k in target.tolist()], np.int64).reshape(len(target), -1)
    order = np.argsort(~there[others], axis=1, kind="stable")
    others = np.take_along_axis(others, order, 1)
    return others, there[others]


def joined(clips: Sequence[ClipBatch]) -> ClipBatch:
    """Batches as one."""
    tokens, images, cameras, *rest, noise = zip(*clips)
    return ClipBatch(
        [token for names in tokens for token in names],
        torch.cat(images),
        Cameras.joined(cameras),
        *(*map(torch.cat, rest), torch.cat(noise, 1)),
    )
