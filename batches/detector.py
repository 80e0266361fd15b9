"""From index, images and cached depth to a detector's batches, in the key frame's EGO frame."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from batches.depth_maps import depth_target
from batches.frames import boxes_in_key_ego, camera_to_key_ego, frames_of
from batches.image_config import ImageConfig
from batches.images import ImageDraw, draws_of, load_images, normalise, post_homography
from batches.lidar import LidarAugmentation, augmented, sample_boxes
from batches.view_config import ViewConfig
from models.backbones.build import BackboneConfig
from models.boxes import Boxes
from models.cameras import Cameras
from models.depth_bins import DepthBins
from storage.depth import DepthReader
from storage.index import Index
from training.order import generator_at, sample_at

Truth = tuple[Tensor, ...]  # (B, ...) each: what predictions are compared with beside boxes


class DetectorData(Protocol):
    """The fields of a detector's config that its batches depend on."""

    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def image(self) -> ImageConfig: ...
    @property
    def view(self) -> ViewConfig: ...
    @property
    def depth_bins(self) -> tuple[float, float, float]: ...
    @property
    def min_lidar_points(self) -> int: ...
    @property
    def bev_flip(self) -> bool: ...
    @property
    def bev_rotation(self) -> float: ...
    @property
    def bev_scale(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


def no_truth(sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
    """Where boxes are all there is to predict."""
    return ()


class Batch(NamedTuple):
    """B samples of N cameras in T frames; frame 0 is the key frame."""

    samples: np.ndarray  # (B,) rows of the index
    tokens: list[str]
    images: Tensor  # (B, T, N, H, W, 3) uint8, channels in the order that the network expects
    cameras: Cameras
    boxes: list[Boxes]  # the truth in the (augmented) ego frame; empty lists where there is none
    depth_labels: Tensor | None  # (B, N, h, w) int64, bin or NO_LABEL of models.depth_bins
    truth: Truth = ()  # what else predictions are compared with
    with_previous: bool = True  # whether earlier frames count

    def to(self, device: torch.device) -> "Batch":
        """The same with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        labels = None if self.depth_labels is None else function(self.depth_labels)
        truth = tuple(map(function, self.truth))
        return self._replace(
            images=function(self.images), cameras=self.cameras.each(function), depth_labels=labels, truth=truth
        )

    def normalised(self) -> Tensor:
        """(B, T, N, 3, H, W) float32, the network's input."""
        return normalise(self.images)


class Batches:
    """Prepares batches. Safe to call from several threads.

    depth: where depth is supervised. truth_of: (row of the index, ego -> augmented ego (4, 4), its boxes in the latter)
    -> what else a sample's predictions are compared with.
    """

    def __init__(
        self,
        config: DetectorData,
        index: Index,
        dataroot: Path,
        depth: DepthReader | None = None,
        truth_of: Callable[[int, np.ndarray, Boxes], Truth] = no_truth,
    ):
        self.config, self.index, self.dataroot = config, index, dataroot
        self.depth, self.truth_of = depth, truth_of
        self.bins = DepthBins(*config.depth_bins, config.view.depth_spacing)
        self.scene = LidarAugmentation(config.bev_flip, np.deg2rad(config.bev_rotation), config.bev_scale)

    def training_at(self, positions: range, samples: np.ndarray) -> Batch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented.

        positions: a step's, or a rank's or a micro-batch's share of them. What is random about a sample follows from
        the seed and its position.
        """
        seed, batch_size = self.config.seed, self.config.batch_size
        made = [self._sample(sample_at(p, samples, seed), generator_at(p, seed)) for p in positions]
        return _collated(made)._replace(with_previous=positions[0] // batch_size >= self.config.view.previous_from)

    def evaluation(self, samples: Sequence[int] | np.ndarray) -> Batch:
        """These samples, nothing random."""
        return _collated([self._sample(int(sample), None) for sample in samples])

    def _sample(self, sample: int, random: np.random.Generator | None) -> Batch:
        """A batch of one."""
        index, view, size = self.index, self.config.view, self.config.image.size
        scene = np.eye(4)
        if random is not None:
            scene[:3, :3] = self.scene.draw(random)
        draws = draws_of(index, sample, self.config.image, random)
        post = np.stack([post_homography(draw, size) for draw in draws])  # (N, 4, 4)
        frames = frames_of(index, sample, view.images)
        to_key_ego = camera_to_key_ego(index, sample, frames, view.key_ego)
        truth = sample_boxes(index, sample, self.config.min_lidar_points)
        truth = boxes_in_key_ego(index, sample, truth, view.key_ego)
        boxes = augmented(np.zeros((0, 5), np.float32), truth, scene[:3, :3])[1]
        return Batch(
            samples=np.array([sample]),
            tokens=[str(index.token[sample])],
            images=torch.from_numpy(np.stack([self._images(frame, draws) for frame in frames]))[None],
            cameras=Cameras(
                _of_one(index.intrinsics[frames]),
                _of_one(np.stack([post] * len(frames))),
                _of_one(to_key_ego),
                _of_one(to_key_ego[0]),
                _of_one(scene),
            ),
            boxes=[boxes],
            depth_labels=None if self.depth is None else self._depth_labels(self.depth, sample, post)[None],
            truth=self.truth_of(sample, scene, boxes),
        )

    def _images(self, frame: int, draws: list[ImageDraw]) -> np.ndarray:
        """A frame's images (N, H, W, 3), augmented as the key frame's of the same cameras are."""
        images = load_images(self.index, self.dataroot, frame, draws, self.config.image.size)
        return images[..., ::-1].copy() if self.config.view.channels == "bgr" else images

    def _depth_labels(self, depth: DepthReader, sample: int, posts: np.ndarray) -> Tensor:
        """Bin of the nearest key-sweep point in every feature cell, (N, h, w)."""
        size, stride = self.config.image.size, self.config.backbone.strides[2]
        nearest = [
            depth_target(points, 0, post, size, stride) for points, post in zip(depth.read_cameras(sample), posts)
        ]
        return self.bins.labels(torch.from_numpy(np.stack(nearest)))


def _collated(made: list[Batch]) -> Batch:
    """Batches of one sample as one batch."""
    samples, tokens, images, cameras, boxes, labels, truth, _ = zip(*made)
    return Batch(
        np.concatenate(samples),
        [token for (token,) in tokens],
        torch.cat(images),
        Cameras.joined(cameras),
        [truth for (truth,) in boxes],
        None if labels[0] is None else torch.cat(labels),
        tuple(map(torch.cat, zip(*truth))),
    )


def _of_one(matrices: np.ndarray) -> Tensor:
    """(1, ...) float64, a sample's."""
    return torch.from_numpy(matrices)[None]
