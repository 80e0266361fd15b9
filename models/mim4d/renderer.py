"""Colour and depth of rays through a volume of features (NeuS, arXiv 2106.10689; as in UniPAD and MIM4D).

Metres outside. Inside, the scene is scaled by 1 / its largest bound: trained weights expect that, and the sharpness of
surfaces has its meaning there. It is all done in float32, whatever autocast says.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.mim4d import sampler
from models.mim4d.field import Field
from models.mim4d.sampler import Stretch
from models.mim4d.trilinear import Corners, Table, products, weighted
from models.shapes import check_shape

_SHARPNESS = 64  # of the distances that say where to sample more, doubled with every step


@dataclass(frozen=True)
class RenderSpec:
    """Everything of a renderer but its weights.

    low, high: m, the box that the volume fills (x, y, z). channels: of the volume. hidden, geometry, sdf_blocks,
    rgb_blocks: see `Field`. samples: of a ray, evenly; importance: further ones, in upsample_steps equal parts. near: m
    from the origin, where a ray begins. edges_at_centres: as in the original, low and high are the centres of the
    outermost voxels (half a voxel off the lift); else their outer sides.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    channels: int = 32
    hidden: int = 16
    geometry: int = 16
    sdf_blocks: int = 5
    rgb_blocks: int = 3
    samples: int = 72
    importance: int = 24
    upsample_steps: int = 1
    near: float = 1.0
    edges_at_centres: bool = False

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high)):
            raise ValueError(f"The box from {self.low} to {self.high} is empty.")
        if self.near < 0:
            raise ValueError(f"Rays begin at {self.near} m, behind their origin.")
        if self.samples < 2 or self.upsample_steps < 0:
            raise ValueError(f"{self.samples} samples in {self.upsample_steps} steps: at least 2 in at least 0 steps.")
        if self.upsample_steps and self.importance < self.upsample_steps:
            raise ValueError(f"{self.importance} samples in {self.upsample_steps} steps are less than one in each.")

    @property
    def scale(self) -> float:
        """Of the scene: 1 / the largest |bound|. A metre of depth counts so much in `depth_loss`: 0.0185 at 54 m."""
        return 1 / max(abs(side) for side in self.low + self.high)


class Rendered(NamedTuple):
    """Of B x R rays with S samples each. A ray that misses the box has no weights, and so no colour and depth 0."""

    rgb: Tensor  # (B, R, 3), over black
    depth: Tensor  # (B, R) m along the unit ray from its origin
    hit: Tensor  # (B, R) bool: it passes through the box beyond `near`
    weights: Tensor  # (B, R, S)
    edges: Tensor  # (B, R, S + 1) m: sample i stands at edge i, its section ends at edge i + 1
    sdf: Tensor  # (B, R, S) m
    gradients: Tensor  # (B, R, S, 3): of the sdf by the point
    alphas: Tensor  # (B, R, S)
    colours: Tensor  # (B, R, S, 3)


class Renderer(nn.Module):
    """Renders rays through volumes. The weights are the field's."""

    def __init__(self, spec: RenderSpec):
        super().__init__()
        self.spec = spec
        self.field = Field(spec.channels, spec.hidden, spec.geometry, spec.sdf_blocks, spec.rgb_blocks)

    def forward(
        self, volume: Tensor, origins: Tensor, directions: Tensor, noise: Tensor | None, anneal: float = 1.0
    ) -> Rendered:
        """volume: (B, C, Z, Y, X). origins: (B, R, 3) m, directions: (B, R, 3), unit, in the volume's frame.

        noise: (1 + upsample_steps, B, R) in [0, 1), a ray's jitter in each pass of sampling; None, for evaluation: no
        jitter, and colours are clamped. anneal: see `Field.alphas`; the original trains with 1. Raises ValueError where
        shapes do not fit.
        """
        edges = self.place(volume, origins, directions, noise)
        rendered = self.render(volume, origins, directions, edges, anneal)
        return rendered if noise is not None else rendered._replace(rgb=rendered.rgb.clamp(0, 1))

    @torch.no_grad()
    def hits(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Which rays (B, R, 3) pass through the box, bool (B, R): `Rendered.hit` before anything is rendered."""
        return self._stretch(origins, directions)[2].hit

    @torch.no_grad()
    def place(self, volume: Tensor, origins: Tensor, directions: Tensor, noise: Tensor | None) -> Tensor:
        """Where rays are sampled: edges (B, R, S + 1) m, see `Rendered`; the arguments are those of `forward`."""
        self._check(volume, origins, directions)
        spec = self.spec
        if noise is not None:
            check_shape("noise", noise, 1 + spec.upsample_steps, *origins.shape[:2])
        jitters = [None] * (1 + spec.upsample_steps) if noise is None else noise.to(self._dtype).unbind()
        with torch.autocast(volume.device.type, enabled=False):
            table, origins, directions, stretch = self._scene(volume, origins, directions)
            edges = sampler.even(spec.samples, jitters[0], stretch.near)
            fresh, order, sdf = edges, None, edges[..., :0]
            for step, jitter in enumerate(jitters[1:]):
                points = _points(origins, directions, stretch.at(fresh[..., :-1]))
                sdf = torch.cat([sdf, self.distances(points, table)], -1)
                sdf = sdf if order is None else sdf.gather(-1, order)
                lengths = stretch.at(edges).diff(dim=-1)
                weights = sampler.section_weights(sdf, lengths, _SHARPNESS * 2**step)
                fresh = sampler.by_weight(edges, weights, spec.importance // spec.upsample_steps, jitter)
                edges, order = sampler.merge(edges, fresh)
            return stretch.at(edges) / spec.scale

    def render(
        self, volume: Tensor, origins: Tensor, directions: Tensor, edges: Tensor, anneal: float = 1.0
    ) -> Rendered:
        """Rays sampled at edges (B, R, S + 1) m, see `Rendered`. Else as `forward`, but colours are never clamped."""
        self._check(volume, origins, directions)
        check_shape("edges", edges, *origins.shape[:2], None)
        scale = self.spec.scale
        with torch.autocast(volume.device.type, enabled=False):
            table, origins, directions, stretch = self._scene(volume, origins, directions)
            scaled = edges.to(self._dtype) * scale
            starts = scaled[..., :-1]
            points = _points(origins, directions, starts)
            directions = directions[..., None, :].expand(points.shape)
            sdf, gradients, colours = self.shade(points, directions, table)
            alphas = self.field.alphas(sdf, gradients, directions, scaled.diff(dim=-1), anneal)
            weights = torch.where(stretch.hit[..., None], sampler.compose(alphas), 0.0)
            rgb = (weights[..., None] * colours).sum(-2)
            # The original also clips it to the range of all samples, in which a mean of some lies anyway.
            depth = (weights * starts).sum(-1) / (weights.sum(-1) + 1e-10)
            depth, sdf = depth / scale, sdf / scale
            return Rendered(rgb, depth, stretch.hit, weights, edges, sdf, gradients, alphas, colours)

    def distances(self, points: Tensor, table: Table) -> Tensor:
        """Signed distances (B, R, S) at points (B, R, S, 3), both scaled."""
        features = weighted(Corners.of(self._places(points, table).flatten(1, 2), table), table)
        return self.field.sdf(points, features.unflatten(0, points.shape[:-1]))

    def shade(self, points: Tensor, directions: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        """Signed distances (B, R, S), their gradients (B, R, S, 3) and colours (B, R, S, 3) of points (B, R, S, 3),
        scaled, seen in directions (B, R, S, 3)."""
        corners = Corners.of(self._places(points, table).flatten(1, 2), table)
        features = weighted(corners, table).unflatten(0, points.shape[:-1])  # (B, R, S, C)
        distance = self.field.sdf.differentiated(points, features)
        by_corners = products(distance.by_features.flatten(0, 2), corners, table)  # (B R S, 8)
        by_place = (by_corners[..., None] * corners.slopes()).sum(1).view(points.shape)
        gradients = distance.by_point + self._per_unit(by_place, table)
        seen = torch.cat([directions, features, gradients, distance.geometry], -1)
        return distance.sdf, gradients, self.field.rgb(points, seen)

    @property
    def _dtype(self) -> torch.dtype:
        return self.field.deviation.dtype

    def _check(self, volume: Tensor, origins: Tensor, directions: Tensor) -> None:
        check_shape("the volume", volume, None, self.spec.channels, None, None, None)
        check_shape("origins", origins, len(volume), None, 3)
        check_shape("directions", directions, *origins.shape)

    def _scene(self, volume: Tensor, origins: Tensor, directions: Tensor) -> tuple[Table, Tensor, Tensor, Stretch]:
        """Scaled, and in the weights' precision."""
        return Table.of(volume.to(self._dtype)), *self._stretch(origins, directions)

    def _stretch(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Stretch]:
        """Rays, scaled and in the weights' precision, and what of them lies in the box."""
        spec = self.spec
        origins, directions = (origins * spec.scale).to(self._dtype), directions.to(self._dtype)
        low, high = ([side * spec.scale for side in sides] for sides in (spec.low, spec.high))
        return origins, directions, sampler.stretch(origins, directions, low, high, spec.near * spec.scale)

    def _places(self, points: Tensor, table: Table) -> Tensor:
        """Places (..., 3) in voxels of scaled points (..., 3)."""
        low = [side * self.spec.scale for side in self.spec.low]
        first = 0.0 if self.spec.edges_at_centres else -0.5
        densities = self._densities(table)
        places = [(p - side) * density + first for p, side, density in zip(points.unbind(-1), low, densities)]
        return torch.stack(places, -1)

    def _per_unit(self, by_place: Tensor, table: Table) -> Tensor:
        """A derivative (..., 3) by the scaled point, of one by the place."""
        return torch.stack([d * density for d, density in zip(by_place.unbind(-1), self._densities(table))], -1)

    def _densities(self, table: Table) -> list[float]:
        """Voxels in a unit of the scaled scene, along x, y, z."""
        spec = self.spec
        sizes = ((high - low) * spec.scale for low, high in zip(spec.low, spec.high))
        return [(count - spec.edges_at_centres) / size for count, size in zip(reversed(table.shape), sizes)]


def _points(origins: Tensor, directions: Tensor, distances: Tensor) -> Tensor:
    """(B, R, S, 3): along rays (B, R, 3) at distances (B, R, S)."""
    return origins[..., None, :] + directions[..., None, :] * distances[..., None]
