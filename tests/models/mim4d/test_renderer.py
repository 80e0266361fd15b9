from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mim4d_render_reference as slow
from models.mim4d.render_loss import depth_loss, rgb_loss
from models.mim4d.renderer import Rendered, Renderer, RenderSpec
from models.mim4d.trilinear import Table

SMALL = RenderSpec((-4, -6, -2), (8, 6, 3), 5, 6, 3, 2, 2, samples=12, importance=8, upsample_steps=2, near=0.5)
SHAPE = (3, 6, 5)  # Z, Y, X


def a_renderer(spec: RenderSpec = SMALL, dtype: torch.dtype = torch.float32) -> Renderer:
    torch.manual_seed(0)
    renderer = Renderer(spec)
    with torch.no_grad():  # livelier than the first weights: surfaces on many rays
        for parameter in renderer.parameters():
            parameter.mul_(1.5 if parameter.ndim == 2 else 1)
    return renderer.to(dtype)


def some_rays(
    batch: int, rays: int, spec: RenderSpec = SMALL, seed: int = 1, dtype=torch.float32
) -> tuple[Tensor, ...]:
    """A volume, origins, directions and noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    directions = normal(batch, rays, 3)
    noise = torch.rand(1 + spec.upsample_steps, batch, rays, generator=generator, dtype=dtype)
    volume = normal(batch, spec.channels, *SHAPE)
    return volume, 0.3 * normal(batch, rays, 3), directions / directions.norm(dim=-1, keepdim=True), noise


def loss_of(rendered: Rendered, spec: RenderSpec = SMALL) -> Tensor:
    rgb, depth = torch.full_like(rendered.rgb, 0.3), torch.full_like(rendered.depth, 3.0)
    return rgb_loss(rendered, rgb) + depth_loss(rendered, depth, spec.scale)


def parts(rendered: Rendered, rays: slice | Tensor) -> list[Tensor]:
    return [value[:, rays] for value in rendered]


def original_names(renderer: Renderer) -> dict[str, Tensor]:
    """The weights as the reference has them."""
    weights = {"laplace_density.beta": torch.ones(1), "laplace_density.beta_min": torch.zeros(1)}
    weights["deviation_network.variance"] = renderer.field.deviation
    for name, trunk in (("sdf_decoder", renderer.field.sdf), ("rgb_decoder", renderer.field.rgb)):
        layers = {"fc_p": (trunk.point.weight, trunk.point.bias)}
        hidden = trunk.point.out_features
        parts = zip(trunk.features.weight.split(hidden), trunk.features.bias.split(hidden))
        layers |= {f"fc_c.{i}": part for i, part in enumerate(parts)}
        layers |= {f"lin{i}": (layer.weight, layer.bias) for i, layer in enumerate(trunk.layers)}
        for layer, (weight, bias) in layers.items():
            weights |= {f"{name}.{layer}.weight": weight, f"{name}.{layer}.bias": bias}
    return weights


@pytest.mark.parametrize("jittered", [True, False], ids=["jitter", "no jitter"])
@pytest.mark.parametrize("anneal", [1.0, 0.4])
def test_ray_by_ray_in_float64(jittered, anneal):
    spec = replace(SMALL, edges_at_centres=True)
    renderer = a_renderer(spec, torch.float64)
    volume, origins, directions, noise = some_rays(1, 7, spec, dtype=torch.float64)
    volume.requires_grad_()
    rendered = renderer(volume, origins, directions, noise if jittered else None, anneal)
    world = slow.World(
        (*spec.low, *spec.high), SHAPE[::-1], spec.channels, spec.hidden, spec.geometry,
        (spec.sdf_blocks, spec.rgb_blocks), spec.samples, spec.importance, spec.upsample_steps, 7, spec.near,
    )  # fmt: skip
    rays = (volume[0], origins[0] * spec.scale, directions[0])
    wanted = slow.rays(world, original_names(renderer), *rays, list(noise[:, 0, :, None]), jittered, anneal)
    got = {
        "rgb": rendered.rgb,
        "depth": rendered.depth[..., None] * spec.scale,
        "weights": rendered.weights[..., None],
        "z_vals": rendered.edges[..., :-1, None] * spec.scale,
        "z_ends": rendered.edges[..., 1:, None] * spec.scale,
        "sdf": rendered.sdf[..., None] * spec.scale,
        "gradients": rendered.gradients,
        "sample_rgb": rendered.colours,
        "sample_alpha": rendered.alphas[..., None],
    }
    for name, value in got.items():
        torch.testing.assert_close(value[0], wanted[name], rtol=1e-6, atol=1e-8)
    leaves = [volume, *renderer.parameters()]
    totals = (
        out["rgb"].square().sum() + out["depth"].sum() + out["gradients"].square().mean() for out in (got, wanted)
    )
    for ours, theirs in zip(*(torch.autograd.grad(total, leaves) for total in totals)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_derivatives_of_two_orders():
    spec = RenderSpec((-2, -2, -1), (2, 2, 1), 2, 3, 2, 1, 1, samples=4, upsample_steps=0, near=0.2)
    renderer = a_renderer(spec, torch.float64)
    volume, origins, directions, noise = some_rays(1, 2, spec, dtype=torch.float64)
    volume = volume[..., :2, :2, :2].clone().requires_grad_()
    edges = renderer.place(volume, origins, directions, noise)

    def outputs(volume: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(dict(renderer.named_parameters()), weights))
        call = (volume, origins, directions, edges)
        rendered = torch.func.functional_call(Rendering(renderer), {f"of.{k}": v for k, v in named.items()}, call)
        return rendered.rgb, rendered.depth, rendered.sdf, rendered.gradients

    inputs = (volume, *(p.detach().clone().requires_grad_() for p in renderer.parameters()))
    assert gradcheck(outputs, inputs, atol=1e-4, rtol=1e-3)
    assert gradgradcheck(outputs, inputs, atol=1e-3, rtol=1e-2, fast_mode=True)


class Rendering(torch.nn.Module):
    """`Renderer.render` as a module's call."""

    def __init__(self, of: Renderer):
        super().__init__()
        self.of = of

    def forward(self, *inputs: Tensor) -> Rendered:
        return self.of.render(*inputs)


def test_rays_that_miss_are_left_out():
    renderer = a_renderer()
    volume, origins, directions, noise = some_rays(2, 9)
    volume.requires_grad_()
    origins[:, 3] = torch.tensor([0.0, 0, 50])  # above, and looks on
    directions[:, 3] = torch.tensor([0.6, 0, 0.8])
    origins[:, 5] = torch.tensor([100.0, 0, 0])  # beside
    directions[:, 5] = torch.tensor([0.0, 1, 0])
    rendered = renderer(volume, origins, directions, noise)
    assert rendered.hit.tolist() == [[i not in (3, 5) for i in range(9)]] * 2
    assert all(value.isfinite().all() for value in rendered)
    missed = ~rendered.hit[0]
    for name in ("rgb", "depth", "weights"):
        assert not getattr(rendered, name)[:, missed].any()
    others = renderer(volume, *(v[:, ~missed] for v in (origins, directions)), noise[..., ~missed])
    for got, wanted in zip(parts(rendered, ~missed), others):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    leaves = [volume, *renderer.parameters()]
    losses = loss_of(rendered), loss_of(others)
    torch.testing.assert_close(*losses)
    for got, wanted in zip(*(torch.autograd.grad(loss, leaves) for loss in losses)):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_no_ray_at_all_hits():
    renderer = a_renderer()
    volume, origins, directions, noise = some_rays(1, 4)
    rendered = renderer(volume, origins + 100, directions.abs(), noise)
    assert not rendered.hit.any()
    loss = loss_of(rendered)
    loss.backward()
    assert loss == 0
    assert all(not p.grad.any() for p in renderer.parameters())


def test_no_rays():
    rendered = a_renderer()(*some_rays(2, 0))
    assert rendered.rgb.shape == (2, 0, 3)
    assert loss_of(rendered) == 0


def test_rays_parallel_to_axes():
    renderer = a_renderer()
    directions = torch.cat([torch.eye(3), -torch.eye(3)])[None]
    volume, origins, _, noise = some_rays(1, 6)
    volume.requires_grad_()
    rendered = renderer(volume, torch.zeros_like(origins), directions, noise)
    assert rendered.hit.all()
    # Jittered edges are up to half a section short of the box's side.
    ends = torch.tensor([8.0, 6, 3, 4, 6, 2])
    assert (rendered.edges[0, :, -1] <= ends + 1e-3).all()
    assert (rendered.edges[0, :, -1] >= ends - ends / SMALL.samples).all()
    loss_of(rendered).backward()
    assert all(value.isfinite().all() for value in rendered)
    assert volume.grad.isfinite().all()


@pytest.mark.parametrize("jittered", [True, False])
def test_two_scenes_are_twice_one(jittered):
    renderer = a_renderer()
    volume, origins, directions, noise = some_rays(2, 11)
    both = renderer(volume, origins, directions, noise if jittered else None)
    for i in range(2):
        one = slice(i, i + 1)
        alone = renderer(volume[one], origins[one], directions[one], noise[:, one] if jittered else None)
        for got, wanted in zip(both, alone):
            torch.testing.assert_close(got[one], wanted, rtol=1e-3, atol=1e-4)


def test_metres():
    """A volume in a box of double the size, with rays of double the length, is the same scene."""
    spec = replace(SMALL, near=1.0, low=(-8, -12, -4), high=(16, 12, 6))
    volume, origins, directions, noise = some_rays(1, 20)
    small, large = a_renderer(), a_renderer(spec)
    one, other = small(volume, origins, directions, noise), large(volume, 2 * origins, directions, noise)
    torch.testing.assert_close(one.rgb, other.rgb)
    torch.testing.assert_close(one.gradients, other.gradients)
    for name in ("depth", "edges", "sdf"):
        torch.testing.assert_close(2 * getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("at_centres", "centres", "outer"),
    [(False, (-3.5, 0.5, 2.5), (-4.0, 1.0, 3.0)), (True, (-4.0, 0.0, 2.0), (-4.0, 1.0, 3.0))],
)
def test_where_voxels_are(at_centres, centres, outer):
    """Box x from -4 to 4 in 8 voxels (or 9, where its sides are centres): a voxel of size 1 is centred there."""
    spec = RenderSpec((-4, -1, -1), (4, 1, 1), channels=1, edges_at_centres=at_centres)
    volume = torch.zeros(1, 1, 2, 2, 9 if at_centres else 8)
    for number, centre in enumerate(centres):
        index = round(centre + 4 if at_centres else centre + 3.5)
        volume[..., index] = number + 1
    renderer = Renderer(spec)
    seen = []
    renderer.field.sdf.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))

    points = torch.tensor([[c, 0.0, 0.0] for c in centres])[None, None] * spec.scale
    renderer.distances(points, Table.of(volume))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([1.0, 2, 3]))


def test_autocast_changes_nothing():
    renderer = a_renderer()
    volume, origins, directions, noise = some_rays(1, 20)
    plain = renderer(volume.bfloat16(), origins, directions, noise)
    with torch.autocast("cpu", torch.bfloat16):
        cast = renderer(volume.bfloat16(), origins, directions, noise)
    for got, wanted in zip(cast, plain):
        assert got.dtype == wanted.dtype != torch.bfloat16
        assert torch.equal(got, wanted)


def test_gradients_are_there_without_autograd():
    renderer = a_renderer()
    inputs = some_rays(1, 20)
    plain = renderer(*inputs)
    with torch.inference_mode():
        inferred = renderer(*inputs)
    for got, wanted in zip(inferred, plain):
        torch.testing.assert_close(got, wanted)


def test_colours_are_clamped_in_evaluation_alone():
    renderer = a_renderer()
    with torch.no_grad():
        for trunk, last in ((renderer.field.sdf, -5.0), (renderer.field.rgb, 50.0)):  # opaque, and white
            trunk.layers[-1].bias[:3] = last
    inputs = some_rays(1, 5)
    assert renderer(*inputs[:3], None).rgb.max() <= 1
    assert renderer(*inputs).rgb.detach() == pytest.approx(1, abs=1e-3)


def test_compiles_as_one_graph():
    renderer = a_renderer()
    inputs = some_rays(1, 5)
    compiled = torch.compile(renderer.render, backend="eager", fullgraph=True)
    edges = renderer.place(*inputs)
    for got, wanted in zip(compiled(*inputs[:3], edges), renderer.render(*inputs[:3], edges)):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("place", "shape", "name"),
    [
        (0, (1, 4, *SHAPE), "the volume"),
        (1, (1, 20, 2), "origins"),
        (1, (2, 20, 3), "origins"),
        (2, (1, 19, 3), "directions"),
        (3, (2, 1, 20), "noise"),
    ],
)
def test_wrong_shapes_are_told(place, shape, name):
    inputs = list(some_rays(1, 20))
    inputs[place] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"{name} has the shape"):
        a_renderer()(*inputs)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"low": (8, -6, -2)}, "is empty"),
        ({"near": -1.0}, "behind their origin"),
        ({"samples": 1}, "at least 2"),
        ({"importance": 1}, "less than one in each"),
    ],
)
def test_specs_that_are_none(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL, **wrong)


def test_losses():
    renderer = a_renderer()
    volume, origins, directions, noise = some_rays(1, 4)
    origins[0, 0] = 100
    directions[0, 0] = torch.tensor([1.0, 0, 0])
    rendered = renderer(volume, origins, directions, noise)
    rgb = rendered.rgb + torch.tensor([5.0, 0.1, 0.2, 0.3])[:, None]
    assert rgb_loss(rendered, rgb).item() == pytest.approx(0.2)
    depth = rendered.depth + torch.tensor([5.0, 1.0, 0.5, 0.0])
    depth[0, 3] = -1
    assert SMALL.scale == 1 / 8
    assert depth_loss(rendered, depth, SMALL.scale).item() == pytest.approx(0.75 / 8)
    assert depth_loss(rendered, torch.zeros_like(depth), SMALL.scale) == 0
    with pytest.raises(ValueError, match="depth has the shape"):
        depth_loss(rendered, depth[..., None], SMALL.scale)
    with pytest.raises(ValueError, match="rgb has the shape"):
        rgb_loss(rendered, rgb[0])


def test_a_metre_is_worth_as_much_as_in_the_original():
    spec = RenderSpec((-54.0, -54.0, -5.0), (54.0, 54.0, 3.0))
    assert 10 * spec.scale == pytest.approx(0.185, abs=1e-3)
