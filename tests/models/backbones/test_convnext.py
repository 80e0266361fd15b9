"""ConvNeXt against its formulas written down cell by cell, whole and of what is visible."""

from types import SimpleNamespace

import pytest
import torch

from models.backbones.config import ConvNeXtConfig
from models.backbones.convnext import LAYER_SCALE, ConvNeXt
from models.checkpointing import set_checkpointing

SMALL = SimpleNamespace(depths=(1, 2, 1, 1), channels=(4, 6, 8, 10), strides=(4, 8, 16, 32))
GELU, EPS = torch.nn.GELU(), 1e-6


def small_convnext(**how) -> ConvNeXt:
    """Every weight is random, so that no branch is small."""
    net = ConvNeXt(SMALL, **how).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


class Cells(dict):
    """A sparse map: (row, column) -> the features (C,) of a visible cell."""

    def conv(self, weight, bias, stride, padding, depthwise):
        """Of visible cells alone; a cell is there where a cell below it is."""
        side = weight.shape[-1]
        places = {(row // stride, column // stride) for row, column in self} if stride > 1 else set(self)
        out = Cells()
        for row, column in places:
            value = bias.clone()
            for i in range(side):
                for j in range(side):
                    below = self.get((row * stride + i - padding, column * stride + j - padding))
                    if below is not None:
                        tap = weight[:, :, i, j]
                        value += tap[:, 0] * below if depthwise else tap @ below
            out[row, column] = value
        return out

    def each(self, function):
        return Cells({place: function(value) for place, value in self.items()})


def slow(net: ConvNeXt, image: torch.Tensor, visible: torch.Tensor) -> list[Cells]:
    """Maps of one image (3, H, W), of which the cells (H/32, W/32) are seen."""
    state, maps = net.state_dict(), []

    def layer(name: str):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name: str):
        weight, bias = layer(name)

        def normalise(x):
            return (x - x.mean()) / (x.var(correction=0) + EPS).sqrt() * weight + bias

        return normalise

    rows, columns = image.shape[1:]
    seen = [(y, x) for y in range(rows) for x in range(columns) if visible[y // 32, x // 32]]
    x = Cells({(row, column): image[:, row, column] for row, column in seen})
    x = x.conv(*layer("stem.0"), 4, 0, False).each(norm("stem.1"))
    for stage, depth in enumerate(SMALL.depths):
        if stage:
            x = x.each(norm(f"stages.{stage}.downsample.0")).conv(*layer(f"stages.{stage}.downsample.1"), 2, 0, False)
        for number in range(depth):
            name = f"stages.{stage}.blocks.{number}"
            (up, up_bias), (down, down_bias) = layer(f"{name}.mlp.fc1"), layer(f"{name}.mlp.fc2")
            mixed = x.conv(*layer(f"{name}.conv_dw"), 1, 3, True).each(norm(f"{name}.norm"))
            branch = mixed.each(lambda v: state[f"{name}.gamma"] * (down @ GELU(up @ v + up_bias) + down_bias))  # noqa: B023
            x = Cells({place: value + branch[place] for place, value in x.items()})
        maps.append(x.each(norm(f"norm{stage}")) if stage in net.out_indices else x)
    return maps


@pytest.mark.parametrize("hidden", [None, [[True, False, False], [False, True, True]]], ids=["whole", "masked"])
def test_every_stage_against_the_formulas(hidden):
    torch.manual_seed(0)
    net, images = small_convnext(), torch.randn(2, 3, 64, 96)
    visible = torch.ones(2, 3, dtype=torch.bool) if hidden is None else ~torch.tensor(hidden)
    with torch.no_grad():
        maps = net(images) if hidden is None else net(images, visible[None])
        for number, image in enumerate(images):
            for found, wanted in zip(maps, slow(net, image, visible), strict=True):
                expected = torch.zeros(found.shape[1:])
                for (row, column), value in wanted.items():
                    expected[:, row, column] = value
                torch.testing.assert_close(found[number], expected, atol=1e-4, rtol=1e-4)


def test_masks_of_their_own_hide_each_image_s_pixels():
    """Changing hidden pixels changes nothing, in any map; changing visible ones does."""
    torch.manual_seed(0)
    net, images, visible = small_convnext(), torch.randn(2, 3, 64, 96), torch.rand(2, 2, 3) < 0.5
    pixels = visible.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    with torch.no_grad():
        maps = net(images, visible)
        for moved, same in ((torch.where(pixels, images, 9.0), True), (torch.where(pixels, 9.0, images), False)):
            assert all(torch.equal(a, b) == same for a, b in zip(maps, net(moved, visible)))


def test_stopping_early_gives_the_same_maps():
    net, images = small_convnext(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole, early = net(images), net(images, stop_at=1)
    assert len(early) == 2
    assert all(torch.equal(a, b) for a, b in zip(early, whole))


def test_checkpointing_changes_no_gradient():
    results, images = [], torch.randn(2, 3, 64, 64)
    for checkpointing in ("none", "mlp", "block"):
        torch.manual_seed(0)
        net = small_convnext(drop_path=0.5).train()
        set_checkpointing(net, checkpointing)
        torch.manual_seed(1)
        maps = net(images)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, *(p.grad for p in net.parameters())])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results))


def test_it_begins_as_published():
    net = ConvNeXt(SMALL)
    for name, value in net.state_dict().items():
        if name.endswith("gamma"):
            assert torch.equal(value, torch.full_like(value, LAYER_SCALE))
        elif name.endswith("bias"):
            assert not value.any()
        elif value.ndim == 1:
            assert (value == 1).all()
        else:
            assert 0 < value.abs().max() < 0.2


@pytest.mark.parametrize(("size", "millions"), [("tiny", 28.59), ("small", 50.22), ("base", 88.59)])
def test_published_sizes(size, millions):
    """Of parameters, with a classifier of 1000 classes and its norm."""
    with torch.device("meta"):
        net = ConvNeXt(ConvNeXtConfig(name="convnext", size=size), out_indices=(3,))
    count = sum(parameter.numel() for parameter in net.parameters()) + 1000 * (net.channels[3] + 1)
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_layers_are_counted_block_by_block():
    net = small_convnext()
    layers = {
        "stem.0.weight": 0,
        "stages.0.blocks.0.gamma": 1,
        "stages.1.downsample.1.weight": 2,
        "stages.1.blocks.1.norm.bias": 3,
        "stages.2.downsample.0.bias": 4,
        "stages.3.blocks.0.mlp.fc1.weight": 5,
        "norm3.weight": 6,
    }
    assert {name: net.layer_of(name) for name in layers} == layers
    assert {net.layer_of(name) for name, _ in net.named_parameters()} == set(range(7))
