"""ConvNeXts and ResNets: every layout written is the layout read, and is the one that other people's code has."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backbones.config import ResNetConfig
from models.backbones.convnext import ConvNeXt
from models.backbones.resnet import ResNet
from models.layouts import (
    WeightsMismatch,
    convnext_to_mmpretrain,
    convnext_to_original,
    convnext_to_timm,
    convnext_to_torchvision,
    convnext_to_uvtr,
    fill_backbone,
    network_sizes,
    read_layout,
    with_prefix,
    without_prefix,
)
from small_swin import small_swin

WRITERS = {
    "geomim": dict,
    "timm": convnext_to_timm,
    "torchvision": convnext_to_torchvision,
    "mmdet": convnext_to_mmpretrain,
    "convnext": convnext_to_original,
    "uvtr": convnext_to_uvtr,
}
KEEP_ALL = ("geomim", "mmdet", "uvtr")  # the others have no norm2


def a_convnext(depths=(1, 2, 1, 1), channels=(4, 6, 8, 10)) -> ConvNeXt:
    """Every weight is random: norms and biases, too."""
    net = ConvNeXt(SimpleNamespace(depths=depths, channels=channels, strides=(4, 8, 16, 32))).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def a_resnet(depth: int) -> ResNet:
    net = ResNet(ResNetConfig(name="resnet", depth=depth)).eval()
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith("running_var") else value.normal_(std=0.05)
    return net


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def published_names(layout: str, depths: tuple[int, ...], channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a classifier's file, written down from the projects' own code."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    for stage, (depth, width) in enumerate(zip(depths, channels)):
        first = {
            "timm": "stem" if stage == 0 else f"stages.{stage}.downsample",
            "torchvision": f"features.{2 * stage}",
        }.get(layout, f"downsample_layers.{stage}")
        norm, conv = (1, 0) if stage == 0 else (0, 1)
        below = 3 if stage == 0 else channels[stage - 1]
        side = 4 if stage == 0 else 2
        layer(f"{first}.{conv}", width, below, side, side)
        layer(f"{first}.{norm}", width if stage == 0 else below)
        for block in range(depth):
            at = {
                "timm": f"stages.{stage}.blocks.{block}",
                "torchvision": f"features.{2 * stage + 1}.{block}.block",
            }.get(layout, f"stages.{stage}.{block}")
            convolution, norm, up, down = {
                "timm": ("conv_dw", "norm", "mlp.fc1", "mlp.fc2"),
                "torchvision": ("0", "2", "3", "5"),
                "mmdet": ("depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2"),
                "convnext": ("dwconv", "norm", "pwconv1", "pwconv2"),
            }[layout]
            layer(f"{at}.{convolution}", width, 1, 7, 7)
            layer(f"{at}.{norm}", width)
            layer(f"{at}.{up}", 4 * width, width)
            layer(f"{at}.{down}", width, 4 * width)
            if layout == "torchvision":
                shapes[f"features.{2 * stage + 1}.{block}.layer_scale"] = (width, 1, 1)
            else:
                shapes[f"{at}.gamma"] = (width,)
    last = {"timm": "head.norm", "torchvision": "classifier.0", "mmdet": "norm3", "convnext": "norm"}[layout]
    layer(last, channels[-1])
    return shapes


@given(
    st.tuples(*[st.integers(1, 3)] * 4), st.tuples(*[st.integers(1, 9)] * 4), st.sampled_from(("", "backbone.", "a.b."))
)
@settings(max_examples=20, deadline=None)
def test_round_trips_of_convnexts_are_exact(depths, channels, prefix):
    state = a_convnext(depths, channels).state_dict()
    assert network_sizes(state) == {"name": "convnext", "depths": depths, "channels": channels}
    for layout, write in WRITERS.items():
        back = read_layout(with_prefix(write(state), prefix))
        kept = {name: value for name, value in state.items() if layout in KEEP_ALL or not name.startswith("norm2.")}
        assert back.layout == layout
        assert same(without_prefix(back.weights, "backbone."), kept)
        assert not back.ignored


@pytest.mark.parametrize("layout", ["timm", "torchvision", "mmdet", "convnext"])
@pytest.mark.parametrize(
    ("depths", "channels"), [((3, 3, 9, 3), (4, 8, 16, 32)), ((1, 2, 1, 1), (4, 6, 8, 10))], ids=["tiny", "small"]
)
def test_a_published_classifier_is_read_whole_and_written_back(layout, depths, channels):
    file = {name: torch.randn(shape) for name, shape in published_names(layout, depths, channels).items()}
    head = {"timm": "head.fc", "torchvision": "classifier.2", "mmdet": "head.fc", "convnext": "head"}[layout]
    net = a_convnext(depths, channels)
    checkpoint = read_layout(file | {f"{head}.weight": torch.ones(3, 3), f"{head}.bias": torch.ones(3)})
    filled = fill_backbone(net, checkpoint)
    assert checkpoint.layout == layout
    assert filled.left == ["backbone.norm2.weight", "backbone.norm2.bias"]
    assert filled.ignored == [f"{head}.bias", f"{head}.weight"]
    written = WRITERS[layout](net.state_dict())
    assert same({name: value for name, value in written.items() if not name.startswith("norm2.")}, file)


def test_pointwise_convolutions_are_linear_layers():
    net, other = a_convnext(), a_convnext()
    file = {
        name: value[..., None, None] if "pointwise" in name and value.ndim == 2 else value
        for name, value in convnext_to_mmpretrain(net.state_dict()).items()
    }
    fill_backbone(other, read_layout(file))
    assert same(net.state_dict(), other.state_dict())


def test_norms_of_other_stages_are_named_as_ignored():
    """As mmdet's files have them."""
    file = convnext_to_mmpretrain(a_convnext().state_dict()) | {"norm0.weight": torch.ones(4)}
    assert read_layout(with_prefix(file, "backbone.")).ignored == ["backbone.norm0.weight"]


@pytest.mark.parametrize("prefix", ["", "backbone.", "img_backbone.", "module."])
@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_is_found_below_any_prefix(depth, prefix):
    net, other = a_resnet(depth), a_resnet(depth)
    others = {f"{prefix}fc.weight": torch.ones(2), "neck.conv1.weight": torch.ones(2)}
    checkpoint = read_layout(with_prefix(net.state_dict(), prefix) | others)
    assert checkpoint.layout == "torchvision"
    filled = fill_backbone(other, checkpoint)
    assert same(net.state_dict(), other.state_dict())
    assert (filled.left, filled.ignored) == ([], sorted(others))
    config = ResNetConfig(name="resnet", depth=depth)
    sizes = {"name": "resnet", "depths": config.depths, "channels": config.channels}
    assert network_sizes(net.state_dict()) == sizes


def test_another_network_is_named():
    with pytest.raises(WeightsMismatch, match="name is swin in the file, resnet in the config"):
        fill_backbone(a_resnet(18), read_layout(small_swin().state_dict()))
    with pytest.raises(WeightsMismatch, match="name is convnext in the file, swin in the config"):
        fill_backbone(small_swin(), read_layout(a_convnext().state_dict()))
    with pytest.raises(WeightsMismatch, match=r"depths is \(2, 2, 2, 2\) in the file, \(3, 4, 6, 3\) in the config"):
        fill_backbone(a_resnet(50), read_layout(a_resnet(18).state_dict()))
    for state in (a_convnext().state_dict(), a_resnet(18).state_dict()):
        with pytest.raises(WeightsMismatch, match=r"2 .* in it, below 'one\.', 'two\.'"):
            read_layout(with_prefix(state, "one.") | with_prefix(state, "two."))
