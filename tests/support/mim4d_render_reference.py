"""MIM4D's renderer ray by ray and sample by sample, in float64: slow, and obvious.

Everything is scaled as in the original, and weights have its names. What comes out is written down as the original's
stored outputs are in mim4d_render_files.py.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PREFIX = "pts_bbox_head.render_model.field."
CASES = {"train": (True, 1.0), "eval": (False, 1.0), "anneal": (True, 0.4)}


@dataclass(frozen=True)
class World:
    """Sizes of a made-up file. shape: of the volume, (X, Y, Z)."""

    box: tuple[float, float, float, float, float, float]
    shape: tuple[int, int, int]
    channels: int
    hidden: int
    geometry: int
    blocks: tuple[int, int]
    samples: int
    importance: int
    steps: int
    rays: int
    near: float = 1.0

    @property
    def scale(self) -> float:
        return 1 / max(map(abs, self.box))


def config_of(world: World) -> dict:
    sdf, rgb = (
        {"in_dim": inputs, "out_dim": out, "hidden_size": world.hidden, "n_blocks": blocks}
        for inputs, out, blocks in (
            (world.channels, 1 + world.geometry, world.blocks[0]),
            (6 + world.channels + world.geometry, 3, world.blocks[1]),
        )
    )
    return {
        "p": {"pc": list(world.box), "shape": list(world.shape), "C": world.channels},
        "norm_scene": True,
        "field_cfg": {"sdf_decoder_cfg": sdf, "rgb_decoder_cfg": rgb, "beta_init": 0.3},
        "collider_cfg": {"near_plane": world.near},
        "sampler_cfg": {
            "initial_sampler": "UniformSampler",
            "num_samples": world.samples,
            "num_samples_importance": world.importance,
            "num_upsample_steps": world.steps,
        },
        "loss_cfg": {"sensor_depth_truncation": 0.1, "weights": {"depth_loss": 10.0, "rgb_loss": 10.0}},
    }


def world_of(arrays: dict[str, np.ndarray]) -> World:
    """Of a stored file."""
    config = json.loads(str(arrays["cfg"]))
    sdf, rgb = (config["field_cfg"][f"{name}_decoder_cfg"] for name in ("sdf", "rgb"))
    sampling, volume = config["sampler_cfg"], arrays["inputs/volume"]
    return World(
        tuple(config["p"]["pc"]),
        volume.shape[:0:-1],
        sdf["in_dim"],
        sdf["hidden_size"],
        sdf["out_dim"] - 1,
        (sdf["n_blocks"], rgb["n_blocks"]),
        sampling["num_samples"],
        sampling["num_samples_importance"],
        sampling["num_upsample_steps"],
        len(arrays["inputs/ray_o"]),
        config["collider_cfg"]["near_plane"],
    )


def trilinear(volume: Tensor, places: Tensor) -> Tensor:
    """(P, C) of a volume (C, Z, Y, X) at places (P, 3): x, y, z in voxels."""
    sizes = volume.shape[:0:-1]
    out = 0
    for corner in itertools.product((0, 1), repeat=3):
        weight, index = 1, []
        for axis, side in enumerate(corner):
            lower = places[:, axis].detach().floor()
            share = places[:, axis] - lower
            voxel = lower.long() + side
            there = (voxel >= 0) & (voxel < sizes[axis])
            weight = weight * torch.where(there, share if side else 1 - share, 0.0)
            index.append(torch.where(there, voxel, 0))
        x, y, z = index
        out = out + weight[:, None] * volume[:, z, y, x].T
    return out


def features_at(world: World, volume: Tensor, points: Tensor) -> Tensor:
    low, high = (torch.tensor(side, dtype=points.dtype) for side in (world.box[:3], world.box[3:]))
    sizes = torch.tensor(world.shape, dtype=points.dtype)
    return trilinear(volume, (points / world.scale - low) / (high - low) * (sizes - 1))


def mlp(weights: dict[str, Tensor], name: str, points: Tensor, features: Tensor, blocks: int, activation) -> Tensor:
    def linear(layer: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.{layer}.weight"].T + weights[f"{name}.{layer}.bias"]

    x = linear("fc_p", points)
    for i in range(blocks + 1):
        x = linear(f"lin{i}", x + linear(f"fc_c.{i}", features))
        if i < blocks:
            x = activation(x)
    return x


def softplus(x: Tensor) -> Tensor:
    return functional.softplus(x, beta=100)


def ends(world: World, origin: Sequence[float], direction: Sequence[float]) -> tuple[float, float]:
    near, far = world.near * world.scale, math.inf
    for axis in range(3):
        slope = direction[axis] + 1e-6
        sides = sorted((world.box[axis + side] * world.scale - origin[axis]) / slope for side in (0, 3))
        near, far = max(near, sides[0]), min(far, sides[1])
    return near, far


def even_edges(count: int, jitter: float | None) -> list[float]:
    edges = [i / count for i in range(count + 1)]
    if jitter is None:
        return edges
    centres = [(i + 0.5) / count for i in range(count)]
    upper, lower = [*centres, 1.0], [0.0, *centres]
    return [a + (b - a) * jitter for a, b in zip(lower, upper)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def section_weights(sdf: list[float], distances: list[float], sharpness: float) -> list[float]:
    """distances: the samples' and the last section's end."""
    weights, left, before = [], 1.0, 0.0
    for i in range(len(sdf) - 1):
        length = distances[i + 1] - distances[i]
        slope = (sdf[i + 1] - sdf[i]) / (length + 1e-5)
        cosine, before = min(before, slope), slope
        cosine = min(max(cosine, -1e3), 0.0)
        middle = (sdf[i] + sdf[i + 1]) / 2
        entering, leaving = (sigmoid(sharpness * (middle + side * cosine * length / 2)) for side in (-1, 1))
        alpha = (entering - leaving + 1e-5) / (entering + 1e-5)
        weights.append(alpha * left)
        left *= 1 - alpha + 1e-7
    return [*weights, 0.0]


def edges_by_weight(edges: list[float], weights: list[float], count: int, jitter: float | None) -> list[float]:
    total = sum(weights)
    missing = max(1e-5 - total, 0)
    below = [0.0]
    for weight in weights:
        below.append(below[-1] + (weight + missing / len(weights)) / (total + missing))
    below = [min(value, 1.0) for value in below]
    out = []
    for i in range(count + 1):
        quantile = (i + (0.5 if jitter is None else jitter)) / (count + 1)
        above = next((j for j, value in enumerate(below) if value > quantile), len(below))
        first, second = min(above - 1, len(edges) - 1), min(above, len(edges) - 1)
        rise = below[second] - below[first]
        share = (quantile - below[first]) / (rise if rise >= 1e-5 else 1.0)
        out.append(edges[first] + min(max(share, 0.0), 1.0) * (edges[second] - edges[first]))
    return out


def compose(alphas: Tensor) -> Tensor:
    weights, left = [], 1.0
    for alpha in alphas:
        weights.append(alpha * left)
        left = left * (1 - alpha + 1e-7)
    return torch.stack(weights)


def ray(
    world: World,
    weights: dict[str, Tensor],
    volume: Tensor,
    origin: Tensor,
    direction: Tensor,
    jitters: Sequence[float | None],
    anneal: float,
) -> dict[str, Tensor]:
    near, far = ends(world, origin.tolist(), direction.tolist())

    def distances(shares: list[float]) -> list[float]:
        return [share * far + (1 - share) * near for share in shares]

    def sdf_at(values: list[float]) -> list[float]:
        points = origin + direction * torch.tensor(values, dtype=origin.dtype)[:, None]
        with torch.no_grad():
            features = features_at(world, volume, points)
            return mlp(weights, "sdf_decoder", points, features, world.blocks[0], softplus)[:, 0].tolist()

    edges = even_edges(world.samples, jitters[0])
    out = {"nears": torch.tensor([near]), "fars": torch.tensor([far])}
    known = dict(zip(edges[:-1], sdf_at(distances(edges[:-1]))))
    for step in range(world.steps):
        sections = section_weights([known[e] for e in edges[:-1]], distances(edges), 64 * 2**step)
        if step == 0:
            start = torch.tensor(distances(edges[:-1]), dtype=origin.dtype)[:, None]
            out |= {"init_weights": torch.tensor(sections)[:, None], "init_sampled_points": origin + direction * start}
        new = edges_by_weight(edges, sections, world.importance // world.steps, jitters[1 + step])
        known |= dict(zip(new[:-1], sdf_at(distances(new[:-1]))))
        edges = [*sorted(edges[:-1] + new[:-1]), max(edges[-1], new[-1])]

    t = torch.tensor(distances(edges), dtype=origin.dtype)
    starts, lengths = t[:-1], t[1:] - t[:-1]
    points = (origin + direction * starts[:, None]).requires_grad_()
    features = features_at(world, volume, points)
    sdf, geometry = mlp(weights, "sdf_decoder", points, features, world.blocks[0], softplus).split(
        [1, world.geometry], 1
    )
    (gradients,) = torch.autograd.grad(sdf.sum(), points, create_graph=True)
    inputs = torch.cat([direction.expand(len(points), 3), features, gradients, geometry], 1)
    colours = mlp(weights, "rgb_decoder", points, inputs, world.blocks[1], torch.relu).sigmoid()
    cosine = gradients @ direction
    cosine = -(torch.relu(0.5 - cosine / 2) * (1 - anneal) + torch.relu(-cosine) * anneal)
    sharpness = torch.exp(10 * weights["deviation_network.variance"]).clamp(1e-6, 1e6)
    entering, leaving = (torch.sigmoid((sdf[:, 0] + side * cosine * lengths / 2) * sharpness) for side in (-1, 1))
    alphas = ((entering - leaving + 1e-5) / (entering + 1e-5)).clamp(0, 1)
    w = compose(alphas)
    beta = weights["laplace_density.beta"].abs() + weights["laplace_density.beta_min"]
    return out | {
        "rgb": (w[:, None] * colours).sum(0),
        "depth": ((w * starts).sum() / (w.sum() + 1e-10))[None],
        "weights": w[:, None],
        "z_vals": starts[:, None],
        "z_ends": t[1:, None],
        "sdf": sdf,
        "gradients": gradients,
        "sample_rgb": colours,
        "sample_alpha": alphas[:, None],
        "sample_density": (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() / beta)) / beta,
    }


def rays(
    world: World,
    weights: dict[str, Tensor],
    volume: Tensor,
    origins: Tensor,
    directions: Tensor,
    noise: list[Tensor],
    jittered: bool,
    anneal: float,
) -> dict[str, Tensor]:
    """All of `ray`'s, stacked. noise: of each pass, (rays, 1)."""
    each = []
    for i in range(len(origins)):
        jitters = [float(values[i]) if jittered else None for values in noise]
        each.append(ray(world, weights, volume, origins[i], directions[i], jitters, anneal))
    out = {name: torch.stack([result[name] for result in each]) for name in each[0]}
    return out if jittered else out | {"rgb": out["rgb"].clamp(0, 1)}


def losses(world: World, out: dict[str, Tensor], rgb: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """Unweighted. rgb: (rays, 3); depth: (rays, 1), -1 where there is none."""
    apart, free, close = [], [], []
    truncation = 0.1 * world.scale
    for wanted, got, sdf, z in zip(depth[:, 0], out["depth"][:, 0], out["sdf"][..., 0], out["z_vals"][..., 0]):
        if wanted <= 0:
            continue
        apart.append((got - wanted).abs())
        for value, place in zip(sdf, z):
            if place < wanted - truncation:
                free.append((truncation - value).relu())
            elif place <= wanted + truncation:
                close.append((place + value - wanted).abs())

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean() if values else torch.zeros((), dtype=depth.dtype)

    return {
        "rgb_loss": (out["rgb"] - rgb).abs().mean(),
        "depth_loss": mean(apart),
        "free_space_loss": mean(free),
        "sdf_loss": mean(close),
        "eikonal_loss": ((out["gradients"].norm(dim=-1) - 1) ** 2).mean(),
    }
