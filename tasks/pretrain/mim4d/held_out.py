"""How well held-out key frames are rendered, and how well one does that sees no images.

What `HeldOutVideo.evaluate` reports, over rays through LiDAR points (colours: over all rays):

depth                     mean absolute error (m) of the rendered distance, from the frame's own masked images
depth_rebuilt             the same from the earlier frames alone, of the samples that have any
depth_shuffled            of the network given another sample's images: where it is no worse than `depth`, the network
                          ignores what it sees
depth_blind               of the best answer without images: the median distance of training rays through the same
                          block of pixels of the same camera
depth_constant            of the median of all training rays
depth_0_15, ...           `depth` by the LiDAR's range (m)
psnr, psnr_rebuilt        of the rendered colours, dB
psnr_blind                of the mean colour of training rays through the same block
psnr_constant             of the mean colour
probe_...                 see tasks/pretrain/probe.py
"""

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple

import numpy as np
import torch
from torch import Tensor

from batches.clips import ClipBatch, Clips
from models.mim4d.video import VideoRendered
from tasks.pretrain.frozen import frozen
from tasks.pretrain.methods.mim4d import Config
from tasks.pretrain.mim4d.picture import Panorama, dense, draw_picture
from tasks.pretrain.probe import Model, Probe, ProbedGrid
from tasks.pretrain.samples import DEPTH_RANGES, DEPTH_SAMPLES, PICTURED, far_apart, spread

BLOCK = 16  # px a side


class HeldOutVideo(Generic[Model]):
    """A `tasks.pretrain.method.Evaluator` on fixed samples with fixed masks and rays.

    render: the model's rendering of a clip. frozen: its key frames' volumes (B, C, Z, Y, X) of whole images. Neither
    has anything random in it. samples: to evaluate on. train: to take the blind answers and the linear probe from.
    """

    def __init__(
        self,
        clips: Clips,
        render: Callable[[Model, ClipBatch], VideoRendered],
        frozen: Callable[[Model, ClipBatch], Tensor],
        config: Config,
        samples: np.ndarray,
        train: np.ndarray,
        device: torch.device,
    ):
        self.clips, self.render, self.frozen, self.samples, self.device = clips, render, frozen, samples, device
        grid = ProbedGrid(config.volume.low[:2], config.volume.cell, config.volume.shape[:0:-1])
        most = config.probe_samples
        self.probe = Probe(self._map, clips.index, grid, most, train, samples) if most else None
        self.blind = Blind.of([self._clip(sample) for sample in spread(train, DEPTH_SAMPLES)], clips.config.image.size)

    def evaluate(self, model: Model) -> dict[str, float]:
        """The metrics above; those of which nothing can be said are left out. `model` is left as it was."""
        depth, colour = Errors(), Errors()
        first: ClipBatch | None = None
        previous: ClipBatch | None = None
        for sample in far_apart(self.samples).tolist():
            clip = self._clip(sample)
            self._add(model, clip, depth, colour)
            if previous is not None:
                self._add_shuffled(model, clip, previous, depth)
            first, previous = first or clip, clip
        if first is not None and previous is not None and first is not previous:
            self._add_shuffled(model, first, previous, depth)
        figures = {f"depth{name}": error for name, error in depth.means().items()}
        figures |= {f"psnr{name}": -10 * math.log10(max(error, 1e-10)) for name, error in colour.means().items()}
        return figures | (self.probe.evaluate(model) if self.probe else {})

    def draw(self, model: Model, folder: Path, name: str = "pretrain.png") -> None:
        """See `picture`; the LiDAR's distances are those of its rays."""
        panoramas = []
        for clip in map(self._clip, self.samples[:PICTURED].tolist()):
            direct, rebuilt = self.rendered(model, dense(clip))
            known = clip.others_there[0, 0].any() if clip.others.shape[2] else False
            farthest = max(float(clip.depths.max()), 1.0)
            panoramas.append(Panorama(clip, direct, rebuilt if known else None, farthest))
        draw_picture(folder / name, panoramas, self.clips.index.cameras)

    def rendered(self, model: Model, clip: ClipBatch) -> VideoRendered:
        """Of a clip on the CPU; `model` is left as it was."""
        with frozen(model):
            return self.render(model, clip.to(self.device))

    def _map(self, model: Model, sample: int) -> Tensor:
        """(Z * C, X, Y): what lies above one another is one cell of the probe."""
        with frozen(model):
            volume = self.frozen(model, self._clip(sample).to(self.device))
        return volume[0].flatten(0, 1).transpose(1, 2)

    def _clip(self, sample: int) -> ClipBatch:
        return self.clips.held_out([int(sample)])

    def _add(self, model: Model, clip: ClipBatch, depth: "Errors", colour: "Errors") -> None:
        direct, rebuilt = self.rendered(model, clip)
        rays = KeyRays.of(clip, direct.hit[0])
        blind_depth, blind_colour = self.blind.of_rays(clip.pixels[0, 0])
        for name, rendered in (("", direct), ("_rebuilt", rebuilt if clip.others_there[0, 0].any() else None)):
            if rendered is not None:
                error = (rendered.depth[0].cpu() - rays.depths).abs()
                depth.add(name, error[rays.known])
                colour.add(name, (rendered.rgb[0].cpu() - rays.colours).square()[rays.cast])
            if name == "":
                for low, high in DEPTH_RANGES:
                    depth.add(f"_{low}_{high}", error[rays.known & (rays.depths >= low) & (rays.depths < high)])
        depth.add("_blind", (blind_depth - rays.depths).abs()[rays.known])
        depth.add("_constant", (self.blind.depth - rays.depths).abs()[rays.known])
        colour.add("_blind", (blind_colour - rays.colours).square()[rays.cast])
        colour.add("_constant", (self.blind.colour - rays.colours).square()[rays.cast])

    def _add_shuffled(self, model: Model, clip: ClipBatch, seen: ClipBatch, depth: "Errors") -> None:
        """The rays of one clip through the images of another."""
        mixed = clip._replace(images=seen.images, visible=seen.visible)
        rendered = self.rendered(model, mixed).direct
        rays = KeyRays.of(clip, rendered.hit[0])
        depth.add("_shuffled", (rendered.depth[0].cpu() - rays.depths).abs()[rays.known])


class KeyRays(NamedTuple):
    """The rays of a clip's key frame, on the CPU."""

    depths: Tensor  # (R,) m
    colours: Tensor  # (R, 3)
    cast: Tensor  # (R,) bool
    known: Tensor  # (R,) bool: cast, and LiDAR says how far

    @classmethod
    def of(cls, clip: ClipBatch, hit: Tensor) -> "KeyRays":
        """clip: of one sample. hit: (R,) bool, rays that pass through what is rendered."""
        depths, cast = clip.depths[0, 0], clip.cast[0, 0] & hit.cpu()
        return cls(depths, clip.colours[0, 0], cast, cast & (depths > 0))


class Errors:
    """Errors by name, and how many there were."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, errors: Tensor) -> None:
        self._sums[name] += float(errors.double().sum())
        self._counts[name] += errors.numel()

    def means(self) -> dict[str, float]:
        """Of the names with any."""
        return {name: total / self._counts[name] for name, total in self._sums.items() if self._counts[name]}


class Blind(NamedTuple):
    """What can be said of a ray without its image: its block's median depth and mean colour in training."""

    depth: float  # m, of all
    colour: Tensor  # (3,)
    depths: Tensor  # (N, H / BLOCK, W / BLOCK) m
    colours: Tensor  # (N, H / BLOCK, W / BLOCK, 3)

    @classmethod
    def of(cls, clips: list[ClipBatch], size: tuple[int, int]) -> "Blind":
        """From the key rays of clips; a block that has none is told what all are. size: (H, W) of the images."""
        pixels, depths, colours = (
            torch.cat([getattr(clip, name)[0, 0][clip.cast[0, 0]] for clip in clips])
            for name in ("pixels", "depths", "colours")
        )
        known = depths > 0
        depth = float(depths[known].median()) if known.any() else 0.0
        colour = colours.mean(0) if len(colours) else torch.full((3,), 0.5)
        shape = (clips[0].images.shape[2], -(-size[0] // BLOCK), -(-size[1] // BLOCK))
        place = np.ravel_multi_index(tuple(_blocks(pixels).numpy().T), shape)
        count = math.prod(shape)
        median = torch.full((count,), depth)
        for block, chosen in _grouped(place[known.numpy()]):
            median[block] = depths[known][chosen].median()
        sums = torch.zeros(count, 4).index_add_(
            0, torch.from_numpy(place), torch.cat([colours, torch.ones(len(colours), 1)], 1)
        )
        mean = torch.where(sums[:, 3:] > 0, sums[:, :3] / sums[:, 3:].clamp(min=1), colour)
        return cls(depth, colour, median.view(shape), mean.view(*shape, 3))

    def of_rays(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Depths (R,) and colours (R, 3) of pixels (R, 3): camera, row, column."""
        camera, row, column = _blocks(pixels).unbind(1)
        return self.depths[camera, row, column], self.colours[camera, row, column]


def _blocks(pixels: Tensor) -> Tensor:
    return pixels // torch.tensor([1, BLOCK, BLOCK])


def _grouped(places: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(place, which of them) for every place there is."""
    order = np.argsort(places, kind="stable")
    found, starts = np.unique(places[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, starts[1:])))
