"""Images and where objects are in them: what pretraining in the image plane learns from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from batches.frames import boxes_in_key_ego, camera_to_key_ego
from batches.image_config import ImageConfig
from batches.images import draws_of, load_images, normalise, post_homography
from batches.lidar import sample_boxes
from models.names import CLASSES
from models.perspective import seen_centers
from storage.index import Index
from training.order import generator_at, sample_at


class PerspectiveBatch(NamedTuple):
    """B samples of N cameras."""

    tokens: list[str]
    images: Tensor  # (B, N, H, W, 3) uint8
    heatmaps: Tensor  # (B, N, classes, H / stride, W / stride), see `models.perspective.seen_centers`

    def to(self, device: torch.device) -> "PerspectiveBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "PerspectiveBatch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "PerspectiveBatch":
        return self._replace(images=function(self.images), heatmaps=function(self.heatmaps))

    def normalised_images(self) -> Tensor:
        """(B N, 3, H, W) float32."""
        return normalise(self.images).flatten(0, 1)


class PerspectiveData(Protocol):
    """The fields of pretraining's config that such batches depend on."""

    @property
    def image(self) -> ImageConfig: ...
    @property
    def seed(self) -> int: ...


class PerspectiveImages:
    """Reads, augments and draws the targets. Safe to call from several threads, and to pickle.

    stride: of the heatmaps. min_lidar_points: boxes with fewer are not learnt from.
    """

    def __init__(self, config: PerspectiveData, stride: int, min_lidar_points: int, index: Index, dataroot: Path):
        self.config, self.stride, self.min_lidar_points = config, stride, min_lidar_points
        self.index, self.dataroot = index, dataroot

    def training_at(self, positions: range, samples: np.ndarray) -> PerspectiveBatch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented.

        positions: a step's, or a rank's or a micro-batch's share of them. What is random about a sample follows from
        the seed and its position.
        """
        seed = self.config.seed
        return self._batch([(sample_at(p, samples, seed), generator_at(p, seed)) for p in positions])

    def held_out(self, samples: Sequence[int] | np.ndarray) -> PerspectiveBatch:
        """These samples without augmentation."""
        return self._batch([(int(sample), None) for sample in samples])

    def _batch(self, drawn: list[tuple[int, np.random.Generator | None]]) -> PerspectiveBatch:
        images, heatmaps = zip(*(self._sample(sample, generator) for sample, generator in drawn))
        tokens = [str(self.index.token[sample]) for sample, _ in drawn]
        return PerspectiveBatch(tokens, torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(heatmaps)))

    def _sample(self, sample: int, generator: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        index, size = self.index, self.config.image.size
        draws = draws_of(index, sample, self.config.image, generator)
        boxes = boxes_in_key_ego(index, sample, sample_boxes(index, sample, self.min_lidar_points))
        heatmaps = seen_centers(
            boxes,
            camera_to_key_ego(index, sample, [sample])[0],
            index.intrinsics[sample],
            np.stack([post_homography(draw, size) for draw in draws]),
            size,
            self.stride,
            len(CLASSES),
        )
        return load_images(index, self.dataroot, sample, draws, size), heatmaps
