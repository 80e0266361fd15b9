"""Images of a sample, augmented, and the halves to hide of them: what masked pretraining begins with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from batches.image_config import ImageConfig
from batches.images import draws_of, load_images, normalise, post_homography
from batches.mask_config import MaskConfig
from models.backbones.build import BackboneConfig
from models.masking import draw_halves
from storage.index import Index
from training.order import MASKS, generator_at, sample_at


class MaskedBatch(NamedTuple):
    """Images alone, and their halves."""

    tokens: list[str]
    images: Tensor  # (B, N, H, W, 3) uint8
    groups: Tensor  # (1 or B * N, H/32, W/32), see models.masking

    def to(self, device: torch.device) -> "MaskedBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MaskedBatch":
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "MaskedBatch":
        return self._replace(images=function(self.images), groups=function(self.groups))

    def normalised_images(self) -> Tensor:
        """(B, N, 3, H, W) float32."""
        return normalise(self.images)


class MaskedData(Protocol):
    """The fields of pretraining's config that its images and masks depend on."""

    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def image(self) -> ImageConfig: ...
    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...


class MaskedImages:
    """Reads, augments and masks. Safe to call from several threads, and to pickle."""

    def __init__(self, config: MaskedData, mask: MaskConfig, index: Index, dataroot: Path):
        self.config, self.mask, self.index, self.dataroot = config, mask, index, dataroot
        self.stride = config.backbone.strides[-1]
        self.grid = mask.mask_grid(config.image.size, self.stride)

    def training_at(self, positions: range, samples: np.ndarray) -> MaskedBatch:
        """What stands at `positions` of a training on `samples` (see training/order.py), augmented.

        positions: a step's, or a rank's or a micro-batch's share of them. What is random about a sample follows from
        the seed and its position.
        """
        chosen = [sample_at(position, samples, self.config.seed) for position in positions]
        generators = [generator_at(position, self.config.seed) for position in positions]
        return self._batch(chosen, generators, self.training_groups(positions))

    def held_out(self, samples: np.ndarray) -> MaskedBatch:
        """These samples without augmentation, each with masks that are always its own."""
        return self._batch(samples, [None] * len(samples), self.held_out_groups(samples))

    def empty(self, samples: int) -> np.ndarray:
        """Room for the images (samples, N, H, W, 3) of a batch: what is made in its place is not copied again."""
        return np.empty((samples, len(self.index.cameras), *self.config.image.size, 3), np.uint8)

    def images(self, sample: int, generator: np.random.Generator | None, out: np.ndarray) -> np.ndarray:
        """Load the sample's images into `out` (N, H, W, 3) uint8; nothing random without a generator.

        Returns their homographies (N, 4, 4).
        """
        size = self.config.image.size
        draws = draws_of(self.index, sample, self.config.image, generator)
        load_images(self.index, self.dataroot, sample, draws, size, out)
        return np.stack([post_homography(draw, size) for draw in draws])

    def training_groups(self, positions: range) -> Tensor:
        """The halves of what stands at these positions, drawn from the seed and the position; or from the seed and the
        step where the step shares them."""
        places = [positions[0] // self.config.batch_size] if self.mask.mask_shared else positions
        seeds = [int(generator_at(place, self.config.seed, MASKS).integers(2**62)) for place in places]
        return torch.cat([self._groups(1, seed) for seed in seeds])

    def held_out_groups(self, samples: np.ndarray) -> Tensor:
        """The halves of these samples, the same whenever they are asked for."""
        return self._groups(len(samples), int(samples[0]))

    def _groups(self, samples: int, seed: int) -> Tensor:
        """Random halves of the tokens of so many samples: (1, H/32, W/32) if shared, else one for each image."""
        mask, generator = self.mask, torch.Generator().manual_seed(seed)
        views = samples * len(self.index.cameras)
        groups = draw_halves(views, self.grid, generator, mask.mask_ratio, mask.mask_shared)
        cells = mask.mask_cell // self.stride
        return groups.repeat_interleave(cells, 1).repeat_interleave(cells, 2)

    def _batch(
        self, samples: Sequence[int] | np.ndarray, generators: Sequence[np.random.Generator | None], groups: Tensor
    ) -> MaskedBatch:
        tokens, images = [str(self.index.token[sample]) for sample in samples], self.empty(len(samples))
        for sample, generator, out in zip(samples, generators, images):
            self.images(sample, generator, out)
        return MaskedBatch(tokens, torch.from_numpy(images), groups)
