"""MIM4D's renderer (mim4d_render): samples of a volume, places on rays, colours and depths, losses and gradients.

It runs in float32 whatever autocast says, and so everything is held to the same tolerances under autocast. Samples by
an inverse CDF of tiny weights move with the rounding: what is rendered is compared at the stored places, tightly, and
at our own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from models.mim4d import sampler
from models.mim4d.render_loss import depth_loss, rgb_loss
from models.mim4d.renderer import Rendered, Renderer, RenderSpec
from models.mim4d.trilinear import Table, trilinear
from oracles.base import Kind, Oracle, Output, Tolerance, norms

# Name: whether rays are jittered, and the share of NeuS's cosine that files do not say.
CASES = {"train": (True, 1.0), "eval": (False, 1.0), "anneal": (True, 0.4)}
ALL_LOSSES = {"depth_loss": 1.0, "rgb_loss": 1.0, "free_space_loss": 0.5, "sdf_loss": 0.7, "eikonal_loss": 0.3}

STORED = {
    "rgb": Tolerance(1e-5),
    "depth": Tolerance(5e-4),
    "weights": Tolerance(1e-5),
    "sdf": Tolerance(5e-6),
    "gradients": Tolerance(5e-4),
    "sample_rgb": Tolerance(1e-4),
    "sample_alpha": Tolerance(1e-4),
    "sample_density": Tolerance(5e-5),
}
OWN = {"rgb": Tolerance(1e-3), "depth": Tolerance(2e-3)}
PLACES, MOST_PLACES = Tolerance(5e-3), Tolerance(1e-5, share=0.95)
LOSS, OWN_LOSS = Tolerance(absolute=1e-6, relative=1e-4), Tolerance(relative=1e-3)
VOLUME_GRADIENT, VOLUME_NORM = Tolerance(of_max=1e-3), Tolerance(relative=1e-3)
GRADIENTS = 2e-2  # relative, of parameters' norms


def field_prefix(oracle: Oracle) -> str:
    """What the names of the field's weights begin with, after "sd/"."""
    mark = "sdf_decoder.fc_p.weight"
    return next(name.removesuffix(mark) for name in oracle.below("sd/") if name.endswith(mark))


def spec_of(oracle: Oracle) -> RenderSpec:
    config, box = oracle.config, oracle.config["p"]["pc"]
    sdf, rgb, sampling = (
        config["field_cfg"]["sdf_decoder_cfg"],
        config["field_cfg"]["rgb_decoder_cfg"],
        config["sampler_cfg"],
    )
    alike = sdf["hidden_size"] == rgb["hidden_size"] and rgb["in_dim"] == 6 + sdf["in_dim"] + sdf["out_dim"] - 1
    if not (config["norm_scene"] and alike and sampling["initial_sampler"] == "UniformSampler"):
        raise ValueError("a renderer of other parts than MIM4D's")
    return RenderSpec(
        tuple(box[:3]),
        tuple(box[3:]),
        channels=sdf["in_dim"],
        hidden=sdf["hidden_size"],
        geometry=sdf["out_dim"] - 1,
        sdf_blocks=sdf["n_blocks"],
        rgb_blocks=rgb["n_blocks"],
        samples=sampling["num_samples"],
        importance=sampling["num_samples_importance"],
        upsample_steps=sampling["num_upsample_steps"],
        near=config["collider_cfg"]["near_plane"],
        edges_at_centres=True,
    )


def theirs(spec: RenderSpec, ours: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of our field's parameters (or their gradients) under the original's names, and cut as its are."""
    named = {}
    for trunk, decoder in (("sdf", "sdf_decoder"), ("rgb", "rgb_decoder")):
        for kind in ("weight", "bias"):
            named[f"{prefix}{decoder}.fc_p.{kind}"] = ours[f"{trunk}.point.{kind}"]
            parts = ours[f"{trunk}.features.{kind}"].split(spec.hidden)
            for i, part in enumerate(parts):
                named[f"{prefix}{decoder}.fc_c.{i}.{kind}"] = part
                named[f"{prefix}{decoder}.lin{i}.{kind}"] = ours[f"{trunk}.layers.{i}.{kind}"]
    named[f"{prefix}deviation_network.variance"] = ours["deviation"].reshape(1)
    return named


def renderer_of(oracle: Oracle) -> Renderer:
    """With the file's weights: each of ours is filled through views of it that the original has names for."""
    spec, prefix = spec_of(oracle), field_prefix(oracle)
    renderer = Renderer(spec)
    with torch.no_grad():
        parameters = {name: value.detach() for name, value in renderer.field.named_parameters()}
        for name, view in theirs(spec, parameters, prefix).items():
            view.copy_(oracle[f"sd/{name}"].view_as(view))
    return renderer


class Scene(NamedTuple):
    volume: Tensor
    origins: Tensor  # m, float64: scaled again they are the file's bits
    directions: Tensor
    noise: Tensor
    rgb: Tensor
    depth: Tensor  # m


def scene_of(oracle: Oracle, spec: RenderSpec) -> Scene:
    noise = torch.stack([oracle[f"inputs/noise{i}"].reshape(1, -1) for i in range(1 + spec.upsample_steps)])
    return Scene(
        oracle["inputs/volume"][None],
        oracle["inputs/ray_o"].double()[None] / spec.scale,
        oracle["inputs/ray_d"][None],
        noise,
        oracle["inputs/gt_rgb"][None],
        oracle["inputs/gt_depth"].double().reshape(1, -1) / spec.scale,
    )


def cases_of(oracle: Oracle) -> Iterator[tuple[str, bool, float]]:
    for case, (jittered, anneal) in CASES.items():
        if f"{case}/out/rgb" in oracle:
            yield case, jittered, anneal


def losses(rendered: Rendered, scene: Scene, spec: RenderSpec, truncation: float) -> dict[str, Tensor]:
    """Unweighted, of the scaled scene. truncation: m. The last three are the original's too, but switched off there."""
    starts, sdf = rendered.edges[..., :-1] * spec.scale, rendered.sdf * spec.scale
    depth, near = scene.depth[..., None] * spec.scale, truncation * spec.scale
    front, behind = starts < depth - near, starts > depth + near
    measured = depth > 0
    front, close = measured & front, measured & ~front & ~behind

    def mean(errors: Tensor, mask: Tensor) -> Tensor:
        return (errors * mask).sum() / mask.sum().clamp(min=1)

    return {
        "rgb_loss": rgb_loss(rendered, scene.rgb),
        "depth_loss": depth_loss(rendered, scene.depth, spec.scale),
        "free_space_loss": mean((near - sdf).relu(), front),
        "sdf_loss": mean((starts + sdf - depth).abs(), close),
        "eikonal_loss": (rendered.gradients.norm(dim=-1) - 1).square().mean(),
    }


def samples_of_a_volume(oracle: Oracle) -> Iterator[Output]:
    if "sampler/grid" not in oracle:
        return
    grid, weight = oracle["sampler/grid"].double().requires_grad_(), oracle["sampler/weight"]
    volume = oracle["inputs/volume"][None, : weight.shape[1]].double().requires_grad_()
    sizes = torch.tensor(volume.shape[:1:-1])  # x, y, z
    value = trilinear(volume, ((grid + 1) / 2 * (sizes - 1))[None])
    total = (value[0].T * weight.reshape(weight.shape[1], -1)).sum()
    by_grid, by_volume = torch.autograd.grad(total, (grid, volume), create_graph=True)
    second_grid, second_volume = torch.autograd.grad(by_grid.square().sum(), (grid, volume))
    yield Output("sampler/value", value[0].T.reshape(weight.shape), Tolerance(1e-5))
    yield Output("sampler/grad_volume_norm", by_volume.norm(), Tolerance(relative=1e-5))
    yield Output("sampler/second_volume_norm", second_volume.norm(), Tolerance(relative=1e-5))
    between = slice(9, None)  # of those before some lie on voxels' centres, where derivatives jump
    for name, got in (("grad_grid", by_grid), ("second_grid", second_grid)):
        wanted = oracle.array(f"sampler/{name}")[between]
        yield Output(f"sampler/{name} (between centres)", got[between], Tolerance(of_max=1e-5), wanted)


def places(oracle: Oracle) -> Iterator[Output]:
    """Where rays enter and leave, and where they are sampled."""
    renderer = renderer_of(oracle)
    spec = renderer.spec
    scene = scene_of(oracle, spec)
    yield Output("scale_factor", spec.scale, Tolerance(relative=1e-7))  # of bounds in float32
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        origins, directions = (scene.origins[0] * spec.scale).float(), scene.directions[0]
        low, high = ([side * spec.scale for side in sides] for sides in (spec.low, spec.high))
        stretch = sampler.stretch(origins, directions, low, high, spec.near * spec.scale)
        yield Output("train/out/nears", stretch.near[:, None], Tolerance(1e-7))
        yield Output("train/out/fars", stretch.far[:, None], Tolerance(1e-6))
        edges = stretch.at(sampler.even(spec.samples, scene.noise[0, 0], stretch.near))
        points = origins[:, None] + directions[:, None] * edges[:, :-1, None]
        yield Output("train/out/init_sampled_points", points, Tolerance(1e-6))
        sdf = renderer.distances(points[None], Table.of(scene.volume))[0]
        weights = sampler.section_weights(sdf, edges.diff(dim=-1), 64)
        yield Output("train/out/init_weights", weights[..., None], Tolerance(1e-4))
    for case, jittered, _ in cases_of(oracle):
        edges = renderer.place(*scene[:3], scene.noise if jittered else None)[0, :, :, None] * spec.scale
        for name, got in (("z_vals", edges[:, :-1]), ("z_ends", edges[:, 1:])):
            yield Output(f"{case}/out/{name} (all)", got, PLACES)
            yield Output(f"{case}/out/{name} (most)", got, MOST_PLACES)


def rendered_at_stored_places(oracle: Oracle) -> Iterator[Output]:
    renderer = renderer_of(oracle)
    spec, config = renderer.spec, oracle.config["loss_cfg"]
    weights = {name: value for name, value in config["weights"].items() if value > 0}
    for case, jittered, anneal in cases_of(oracle):
        scene = scene_of(oracle, spec)
        volume = scene.volume.requires_grad_()
        z_vals, z_ends = (oracle[f"{case}/out/{name}"].double()[None, ..., 0] for name in ("z_vals", "z_ends"))
        edges = torch.cat([z_vals, z_ends[..., -1:]], -1) / spec.scale
        rendered = renderer.render(volume, scene.origins, scene.directions, edges, anneal)
        if not jittered:
            rendered = rendered._replace(rgb=rendered.rgb.clamp(0, 1))
        sdf = rendered.sdf[..., None] * spec.scale
        yielded = {
            "rgb": rendered.rgb,
            "depth": rendered.depth[..., None] * spec.scale,
            "weights": rendered.weights[..., None],
            "sdf": sdf,
            "gradients": rendered.gradients,
            "sample_rgb": rendered.colours,
            "sample_alpha": rendered.alphas[..., None],
            "sample_density": laplace_density(oracle, sdf),
        }
        for name, got in yielded.items():
            yield Output(f"{case}/out/{name} (stored places)", got[0], STORED[name])

        values = losses(rendered, scene, spec, config["sensor_depth_truncation"])
        sums = {}
        for kind, factors in (("loss", weights), ("loss_all", ALL_LOSSES)):
            terms = {name: factor * values[name] for name, factor in factors.items()}
            sums[kind] = sum(terms.values())
            for name, term in terms.items():
                yield Output(f"{case}/{kind}/{name} (stored places)", term, LOSS)
        named = dict(renderer.field.named_parameters())
        with torch.autocast("cpu", enabled=False):  # as in training: only what goes forward is in bf16
            (by_volume,) = torch.autograd.grad(sums["loss"], volume, retain_graph=True)
            all_by_volume, *by_parameters = torch.autograd.grad(sums["loss_all"], [volume, *named.values()])
        for name, got in (("volume", by_volume), ("volume_all", all_by_volume)):
            yield Output(f"{case}/grad/{name}_sub", got[0, ::4], VOLUME_GRADIENT)
            yield Output(f"{case}/grad/{name}_norm", got.double().norm(), VOLUME_NORM)
        gradients = theirs(spec, dict(zip(named, by_parameters)), field_prefix(oracle))
        yield from norms(oracle, f"{case}/gradnorm/", gradients, GRADIENTS, GRADIENTS)
        for name, got in gradients.items():
            yield Output(f"{case}/grad/{name}", got, Tolerance(of_max=GRADIENTS))


def rendered_at_own_places(oracle: Oracle) -> Iterator[Output]:
    renderer = renderer_of(oracle)
    spec, config = renderer.spec, oracle.config["loss_cfg"]
    scene = scene_of(oracle, spec)
    for case, jittered, anneal in cases_of(oracle):
        with torch.no_grad():
            rendered = renderer(*scene[:3], scene.noise if jittered else None, anneal)
        yield Output(f"{case}/out/rgb (own places)", rendered.rgb[0], OWN["rgb"])
        yield Output(f"{case}/out/depth (own places)", rendered.depth[0, :, None] * spec.scale, OWN["depth"])
        values = losses(rendered, scene, spec, config["sensor_depth_truncation"])
        for name, factor in config["weights"].items():
            if factor > 0:
                yield Output(f"{case}/loss/{name} (own places)", factor * values[name], OWN_LOSS)


def laplace_density(oracle: Oracle, sdf: Tensor) -> Tensor:
    """VolSDF's density, which the original computes beside NeuS's opacity and does not use."""
    prefix = f"sd/{field_prefix(oracle)}laplace_density."
    beta = oracle[f"{prefix}beta"].abs() + oracle[f"{prefix}beta_min"]
    return (0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() / beta)) / beta


KINDS = (
    Kind(
        "mim4d_render",
        ("inputs/ray_o", "inputs/volume"),
        ("sd/*", "inputs/*", "sampler/grid", "sampler/weight"),
        (samples_of_a_volume, places, rendered_at_stored_places, rendered_at_own_places),
    ),
)
