"""Made-up files in the format of mim4d_render, with what the slow reference computes in place of the original."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import mim4d_render_reference as slow

ALL_LOSSES = {"depth_loss": 1.0, "rgb_loss": 1.0, "free_space_loss": 0.5, "sdf_loss": 0.7, "eikonal_loss": 0.3}


def random_weights(world: slow.World, generator: torch.Generator) -> dict[str, Tensor]:
    def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        weight = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5 * 0.9
        return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs, generator=generator)}

    out = {
        "laplace_density.beta_min": torch.tensor([1e-4]),
        "laplace_density.beta": torch.tensor([0.28]),
        "deviation_network.variance": torch.tensor([0.31]),
    }
    sizes = (
        ("sdf_decoder", world.channels, 1 + world.geometry, world.blocks[0]),
        ("rgb_decoder", 6 + world.channels + world.geometry, 3, world.blocks[1]),
    )
    for name, features, last, blocks in sizes:
        out |= linear(f"{name}.fc_p", 3, world.hidden)
        for i in range(blocks + 1):
            out |= linear(f"{name}.lin{i}", world.hidden, last if i == blocks else world.hidden)
            out |= linear(f"{name}.fc_c.{i}", features, world.hidden)
    return out


def random_inputs(world: slow.World, generator: torch.Generator) -> dict[str, Tensor]:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    directions = torch.randn(world.rays, 3, generator=generator) * torch.tensor([1, 1, 0.2])
    depth = torch.where(uniform(world.rays, 1) < 0.7, 0.05 + 0.5 * uniform(world.rays, 1), -1.0)
    return {
        "volume": torch.randn(world.channels, *world.shape[::-1], generator=generator) * 0.6,
        "ray_o": (uniform(world.rays, 3) - 0.5) * 2 * world.scale,
        "ray_d": directions / directions.norm(dim=1, keepdim=True),
        "gt_rgb": uniform(world.rays, 3),
        "gt_depth": depth,
        **{f"noise{i}": uniform(world.rays, 1) for i in range(1 + world.steps)},
    }


def oracle_file(world: slow.World, seed: int = 0) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    weights, inputs = random_weights(world, generator), random_inputs(world, generator)
    arrays = {"cfg": np.array(json.dumps(slow.config_of(world))), "scale_factor": np.array(world.scale)}
    arrays |= {f"sd/{slow.PREFIX}{name}": value.numpy() for name, value in weights.items()}
    arrays |= {f"inputs/{name}": value.numpy() for name, value in inputs.items()}
    for name, value in outputs(world, weights, inputs).items():
        double = "norm" in name
        arrays[name] = np.array(value.detach().numpy(), np.float64 if double else np.float32)
    return arrays


def outputs(
    world: slow.World, weights: dict[str, Tensor], inputs: dict[str, Tensor], cases: Sequence[str] = tuple(slow.CASES)
) -> dict[str, Tensor]:
    """What a file stores, by its keys."""
    weights = {name: value.double().requires_grad_() for name, value in weights.items()}
    inputs = {name: value.double() for name, value in inputs.items()}
    volume = inputs["volume"].requires_grad_()
    noise = [inputs[f"noise{i}"] for i in range(1 + world.steps)]
    used = {name: value for name, value in weights.items() if not name.startswith("laplace")}
    stored = {}
    for case in cases:
        jittered, anneal = slow.CASES[case]
        out = slow.rays(world, weights, volume, inputs["ray_o"], inputs["ray_d"], noise, jittered, anneal)
        short = ("rgb", "depth", "weights", "z_vals", "z_ends")
        stored |= {f"{case}/out/{name}": value for name, value in out.items() if case == "train" or name in short}
        values = slow.losses(world, out, inputs["gt_rgb"], inputs["gt_depth"])
        terms = {name: 10 * values[name] for name in ("rgb_loss", "depth_loss")}
        all_terms = {name: factor * values[name] for name, factor in ALL_LOSSES.items()}
        stored |= {f"{case}/loss/{name}": term for name, term in terms.items()}
        stored |= {f"{case}/loss_all/{name}": term for name, term in all_terms.items()}
        (by_volume,) = torch.autograd.grad(sum(terms.values()), volume, retain_graph=True)
        all_by_volume, *by_weights = torch.autograd.grad(sum(all_terms.values()), [volume, *used.values()])
        for name, gradient in (("volume", by_volume), ("volume_all", all_by_volume)):
            stored |= {f"{case}/grad/{name}_sub": gradient[::4], f"{case}/grad/{name}_norm": gradient.norm()}
        for name, gradient in zip(used, by_weights):
            stored[f"{case}/gradnorm/{slow.PREFIX}{name}"] = gradient.norm()
            if case == "train" and ("sdf_decoder.lin0" in name or "variance" in name):
                stored[f"{case}/grad/{slow.PREFIX}{name}"] = gradient
    return stored
