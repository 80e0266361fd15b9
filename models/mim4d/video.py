"""From the lifted volumes of a clip to rendered colour and depth: of a frame itself, and of the frames around it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.mim4d.renderer import Rendered, Renderer, RenderSpec
from models.mim4d.temporal import TemporalDecoder, TemporalSpec
from models.mim4d.warp import warp

GROUPS = 8  # of the norm's channels


class Targets(NamedTuple):
    """The K frames of each clip that are rendered, and the F others that each is rebuilt from."""

    target: Tensor  # (B, K) int64
    others: Tensor  # (B, K, F) int64, those that are not there last
    others_there: Tensor  # (B, K, F) bool
    to_other: Tensor  # (B, K, F, 4, 4) float64, LiDAR frame of the target -> of the other


class RayBundle(NamedTuple):
    """R rays of each rendered frame, in its own LiDAR frame."""

    origins: Tensor  # (B, K, R, 3) m
    directions: Tensor  # (B, K, R, 3) of length 1
    noise: Tensor | None  # (passes, B, K, R), see `Renderer.forward`


class VideoRendered(NamedTuple):
    """(B * K, R, ...) each."""

    direct: Rendered  # from the frame's own volume
    rebuilt: Rendered | None  # from the others'; None where there are none


class VideoRendering(nn.Module):
    """What MIM4D trains behind the lift.

    Args:
        context: channels that are lifted.
        temporal: rebuilds a frame from the others; None for a clip of one frame.
    """

    def __init__(self, context: int, render: RenderSpec, temporal: TemporalSpec | None):
        super().__init__()
        # A norm within a frame: batch norm's statistics would tell every frame a little of the one that is dropped.
        self.project = nn.Sequential(
            nn.Conv3d(context, render.channels, 3, padding=1, bias=False),
            nn.GroupNorm(min(GROUPS, render.channels), render.channels),
            nn.ReLU(inplace=True),
        )
        self.temporal = None if temporal is None else TemporalDecoder(temporal)
        self.renderer = Renderer(render)

    def forward(self, lifted: Tensor, targets: Targets, rays: RayBundle) -> VideoRendered:
        """lifted: (B, T, context, Z, Y, X), every frame's in its own LiDAR frame."""
        volumes = self.project(lifted.flatten(0, 1)).unflatten(0, lifted.shape[:2])
        direct = self.render(chosen(volumes, targets.target), rays)
        if self.temporal is None:
            return VideoRendered(direct, None)
        return VideoRendered(direct, self.render(self.rebuild(volumes, targets), rays))

    def rebuild(self, volumes: Tensor, targets: Targets) -> Tensor:
        """The target frames' volumes (B, K, C, Z, Y, X) from those of the others, (B, T, C, Z, Y, X)."""
        batch, count, frames = targets.others.shape
        assert self.temporal is not None
        others = chosen(volumes, targets.others.flatten(1)).flatten(0, 1)
        spec = self.renderer.spec
        moved = warp(others, spec.low, spec.high, targets.to_other.flatten(0, 2)).unflatten(0, (batch * count, frames))
        return self.temporal(moved, targets.others_there.flatten(0, 1)).unflatten(0, (batch, count))

    def render(self, volumes: Tensor, rays: RayBundle) -> Rendered:
        """volumes: (B, K, C, Z, Y, X), of the frames that the rays are of."""
        noise = None if rays.noise is None else rays.noise.flatten(1, 2)
        return self.renderer(volumes.flatten(0, 1), rays.origins.flatten(0, 1), rays.directions.flatten(0, 1), noise)


def chosen(volumes: Tensor, frames: Tensor) -> Tensor:
    """(B, n, ...) of volumes (B, T, ...), frames (B, n)."""
    return volumes[torch.arange(len(volumes), device=volumes.device)[:, None], frames]
