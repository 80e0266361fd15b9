"""MIM4D's released files, built from its modules' names and shapes: read strictly, and written back."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.backbones.config import ConvNeXtConfig, published
from models.backbones.convnext import ConvNeXt
from models.layouts import (
    WeightsMismatch,
    convnext_to_uvtr,
    fill_backbone,
    network_sizes,
    read_layout,
    with_prefix,
    without_prefix,
)
from models.layouts.mim4d import BACKBONE, FIELD, TEMPORAL, mim4d_to_released
from models.mim4d.layout import fill_mim4d
from models.mim4d.temporal import TemporalDecoder, TemporalSpec

DEPTHS, CHANNELS = (1, 2, 1, 1), (4, 6, 8, 10)
SPEC = TemporalSpec((4, 3), channels=3, heights=2, frames=2, width=16, short_ffn=12, long_ffn=8)


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def backbone_names(norms: tuple[int, ...], depths=DEPTHS, channels=CHANNELS) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for stage, (depth, width) in enumerate(zip(depths, channels)):
        at, below = f"downsample_layers.{stage}", channels[stage - 1]
        shapes |= layer(f"{at}.1", width, below, 2, 2) if stage else layer(f"{at}.0", width, 3, 4, 4)
        shapes |= layer(f"{at}.0", below) if stage else layer(f"{at}.1", width)
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            shapes |= {f"{at}.gamma": (width,)} | layer(f"{at}.dwconv", width, 1, 7, 7) | layer(f"{at}.norm", width)
            shapes |= layer(f"{at}.pwconv1", 4 * width, width) | layer(f"{at}.pwconv2", width, 4 * width)
    for stage in norms:
        shapes |= layer(f"norm{stage}", channels[stage])
    return with_prefix(shapes, "img_backbone.")


def decoder_names(spec: TemporalSpec = SPEC) -> dict[str, tuple[int, ...]]:
    width, narrow, cells = spec.width, spec.width // spec.reduction, spec.shape[0] * spec.shape[1]
    folded = spec.channels * spec.heights
    shapes: dict[str, tuple[int, ...]] = {
        "frame_embeds": (spec.frames + 1, width),
        "queries_long.weight": (cells, narrow),
        "queries_short.weight": (cells, width),
        "proj.0.weight": (width, folded, 1, 1),
        "output_proj.0.weight": (folded, width + narrow, 3, 3),
        **layer("proj.1", width),
        **layer("input_proj.0", narrow, width),
        **layer("input_proj.1", narrow),
        **layer("output_proj.1", folded),
    }
    for branch, wide, heads, frames, ffn in (
        ("long", narrow, spec.long_heads, spec.frames, spec.long_ffn),
        ("short", width, spec.short_heads, 1, spec.short_ffn),
    ):
        reads = heads * frames * spec.points
        for number in range(spec.layers):
            at = f"decoder_{branch}.layers.{number}"
            shapes |= layer(f"{at}.attentions.0.sampling_offsets", 2 * reads, wide)
            shapes |= layer(f"{at}.attentions.0.attention_weights", reads, wide)
            shapes |= layer(f"{at}.attentions.0.value_proj", wide, wide)
            shapes |= layer(f"{at}.attentions.0.output_proj", wide, wide)
            shapes |= layer(f"{at}.ffns.0.layers.0.0", ffn, wide) | layer(f"{at}.ffns.0.layers.1", wide, ffn)
            shapes |= layer(f"{at}.norms.0", wide) | layer(f"{at}.norms.1", wide)
    return with_prefix(shapes, "history_decoder.")


def field_names() -> dict[str, tuple[int, ...]]:
    """Hidden 4, 3 channels, 2 of geometry."""
    shapes: dict[str, tuple[int, ...]] = {"deviation_network.variance": (1,)}
    for trunk, blocks, features, out in (("sdf_decoder", 5, 3, 3), ("rgb_decoder", 3, 11, 3)):
        shapes |= layer(f"{trunk}.fc_p", 4, 3)
        for number in range(blocks + 1):
            shapes |= layer(f"{trunk}.fc_c.{number}", 4, features)
            shapes |= layer(f"{trunk}.lin{number}", 4 if number < blocks else out, 4)
    return with_prefix(shapes, "pts_bbox_head.render_model.field.")


UNUSED = {
    "pretraining": {
        **layer("img_neck.lateral_convs.0.conv", 4, 10, 1, 1),
        **layer("img_neck.fpn_convs.0.conv", 4, 4, 3, 3),
        **layer("input_proj", 4, 4, 1, 1),
        **layer("depth_net.reduce_conv.0", 4, 4, 3, 3),
        "depth_net.reduce_conv.1.running_mean": (4,),
        **layer("depth_net.depth_conv.3.aspp1.atrous_conv", 4, 4, 1, 1),
        **layer("render_conv.0", 3, 4, 3, 3, 3),
        "render_conv.1.num_batches_tracked": (),
        **layer("pts_bbox_head.render_conv.0", 3, 3, 3, 3, 3),
        "pts_bbox_head.render_model.field.laplace_density.beta": (1,),
        "pts_bbox_head.render_model.field.laplace_density.beta_min": (1,),
    },
    "finetuned": {
        **layer("img_neck.lateral_convs.0.conv", 4, 10, 1, 1),
        **layer("input_proj", 4, 4, 1, 1),
        **layer("depth_net.depth_conv.0.conv1", 4, 4, 3, 3),
        **layer("view_trans.conv_layer.0.0", 4, 4, 3, 3, 3),
        "pts_bbox_head.query_embedding.weight": (9, 8),
        **layer("pts_bbox_head.transformer.decoder.layers.0.attentions.0.value_proj", 4, 4),
        **layer("pts_bbox_head.cls_branches.0.0", 4, 4),
    },
}


def a_file(kind: str = "pretraining", norms: tuple[int, ...] = (3,)) -> dict[str, torch.Tensor]:
    """norms: of the levels that the neck takes: the last (config B), or all (config A)."""
    names = backbone_names(norms) | UNUSED[kind]
    if kind == "pretraining":
        names |= decoder_names() | field_names()
    return {name: torch.randn(shape) for name, shape in names.items()}


class Trunk(nn.Module):
    """With the renderer's names."""

    def __init__(self, features: int, out: int, blocks: int):
        super().__init__()
        self.point, self.features = nn.Linear(3, 4), nn.Linear(features, (blocks + 1) * 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4 if i < blocks else out) for i in range(blocks + 1))


def a_network(temporal: TemporalSpec | None = SPEC) -> nn.Module:
    """A backbone, a temporal decoder, a field and a neck of its own, where a MIM4D has them."""
    net = nn.Module()
    net.backbone = ConvNeXt(SimpleNamespace(depths=DEPTHS, channels=CHANNELS, strides=(4, 8, 16, 32)))
    net.neck = nn.Linear(2, 2)
    net.video = nn.Module()
    net.video.temporal = None if temporal is None else TemporalDecoder(temporal)
    net.video.renderer = nn.Module()
    net.video.renderer.field = nn.Module()
    field = net.video.renderer.field
    field.sdf, field.rgb, field.deviation = Trunk(3, 3, 5), Trunk(11, 3, 3), nn.Parameter(torch.tensor(0.3))
    return net


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("norms", [(3,), (0, 1, 2, 3)], ids=["B", "A"])
def test_a_pretraining_file_fills_what_it_has_and_is_written_back(norms, prefix):
    file, net = a_file(norms=norms), a_network()
    swapped_out = {"ema_img_backbone_stages_0_0_gamma": torch.ones(4)}
    checkpoint = read_layout(with_prefix(file | swapped_out, prefix))
    assert (checkpoint.layout, checkpoint.whole, checkpoint.unknown) == ("MIM4D", False, [])
    filled = fill_mim4d(net, checkpoint)
    of_others = [f"img_backbone.norm{stage}" for stage in norms if stage < 2]
    ignored = {*UNUSED["pretraining"], *(f"{norm}.{kind}" for norm in of_others for kind in ("weight", "bias"))}
    assert filled.ignored == sorted(prefix + name for name in ignored)
    lacking = [] if 2 in norms else ["backbone.norm2.weight", "backbone.norm2.bias"]
    assert sorted(filled.left) == sorted([*lacking, "neck.weight", "neck.bias"])

    written = mim4d_to_released(net.state_dict())
    used = {name: value for name, value in file.items() if name not in ignored}
    assert same({name: value for name, value in written.items() if name in file or 2 in norms}, used)
    assert same(checkpoint.weights, {name: net.state_dict()[name] for name in checkpoint.weights})
    assert all(value.is_contiguous() for value in written.values())


@pytest.mark.parametrize("norms", [(3,), (0, 1, 2, 3)], ids=["B", "A"])
def test_ours_written_and_read_is_the_same(norms):
    net, other = a_network(), a_network()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    written = mim4d_to_released(net.state_dict())
    assert written.keys() == backbone_names((2, 3)).keys() | decoder_names().keys() | field_names().keys()
    filled = fill_mim4d(other, read_layout(written))
    assert filled.left == ["neck.weight", "neck.bias"]
    assert filled.ignored == []
    other.neck = net.neck
    assert same(other.state_dict(), net.state_dict())


@pytest.mark.parametrize("kind", ["pretraining", "finetuned"])
def test_a_backbone_alone(kind):
    """Of either file; all else in it is named."""
    file, backbone = a_file(kind, (0, 1, 2, 3)), a_network().backbone
    checkpoint = read_layout(file)
    assert checkpoint.layout == ("MIM4D" if kind == "pretraining" else "uvtr")
    filled = fill_backbone(backbone, checkpoint)
    assert filled.left == []
    used = {name for name in file if name.startswith("img_backbone.") and ".norm0." not in name}
    assert {*filled.ignored} >= UNUSED[kind].keys()
    assert torch.equal(backbone.stages[1].blocks[1].mlp.fc2.weight, file["img_backbone.stages.1.1.pwconv2.weight"])
    assert torch.equal(backbone.stages[3].downsample[1].weight, file["img_backbone.downsample_layers.3.1.weight"])
    assert torch.equal(backbone.norm3.bias, file["img_backbone.norm3.bias"])
    assert len(filled.filled) == len(used) - 2  # norm1

    written = with_prefix(convnext_to_uvtr(backbone.state_dict()), "img_backbone.")
    assert same(written, {name: value for name, value in file.items() if name in written})
    back = read_layout(written)
    assert (back.layout, back.ignored) == ("uvtr", [])
    assert same(without_prefix(back.weights, "backbone."), backbone.state_dict())


def test_a_file_without_the_temporal_decoder():
    """UniPAD's, or into a network of one frame."""
    file = {name: value for name, value in a_file().items() if not name.startswith("history_decoder.")}
    filled = fill_mim4d(a_network(), read_layout(file))
    assert any(name.startswith(FIELD) for name in filled.filled)
    assert {name for name in filled.left if name.startswith(TEMPORAL)} == {
        TEMPORAL + name for name in TemporalDecoder(SPEC).state_dict()
    }
    filled = fill_mim4d(a_network(None), read_layout(a_file()))
    assert {*filled.ignored} == UNUSED["pretraining"].keys() | decoder_names().keys()


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_shapes_tell_the_size(size):
    config = ConvNeXtConfig(size=size)
    names = backbone_names((3,), config.depths, config.channels) | decoder_names() | UNUSED["pretraining"]
    checkpoint = read_layout({name: torch.empty(shape, device="meta") for name, shape in names.items()})
    assert published(**network_sizes(without_prefix(checkpoint.weights, BACKBONE))) == config


@pytest.mark.parametrize(
    "name",
    [
        "img_backbone.mask_token",
        "img_backbone.norm.weight",
        "img_backbone.stages.0.0.dwconv.scale",
        "history_decoder.decoder_long.layers.0.attentions.0.key_proj.weight",
        "history_decoder.level_embeds",
        "pts_bbox_head.render_model.field.semantic_decoder.lin0.weight",
        "pts_bbox_head.cls_branches.0.0.weight",
        "radar_net.conv.weight",
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_an_unknown_name_is_refused(name, alone):
    checkpoint = read_layout(with_prefix(a_file() | {name: torch.ones(1)}, "module."))
    with pytest.raises(WeightsMismatch, match=f"^unexpected: {re.escape(f'module.{name}')}$"):
        fill_backbone(a_network().backbone, checkpoint) if alone else fill_mim4d(a_network(), checkpoint)


def test_a_name_beside_the_prefix_is_refused():
    checkpoint = read_layout(with_prefix(a_file(), "module.") | {"stray": torch.ones(1)})
    with pytest.raises(WeightsMismatch, match=r"^unexpected: stray$"):
        fill_mim4d(a_network(), checkpoint)


def faults(changed: dict[str, torch.Tensor], without: str | None = None) -> str:
    net = a_network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        fill_mim4d(net, read_layout({name: x for name, x in (a_file() | changed).items() if name != without}))
    assert same(net.state_dict(), before)
    return str(caught.value)


def test_what_does_not_fit_is_said_in_a_sentence():
    name = "history_decoder.decoder_short.layers.0.norms.1.bias"
    assert faults({name: torch.ones(9)}) == f"of another shape: {name} (9,) for (16,)"
    assert faults({}, without=name) == f"missing: {name}"
    name = "img_backbone.stages.2.0.gamma"
    assert faults({name: torch.full((8,), torch.nan)}) == f"with values that are not finite: {name}"
    name = "pts_bbox_head.render_model.field.sdf_decoder.fc_c.2.weight"
    field = "pts_bbox_head.render_model.field.sdf_decoder.fc_c.*.weight: "
    assert faults({name: torch.ones(4, 2)}).startswith(f"{field}6 layers up to 5 of the shapes (4, 2), (4, 3)")
    assert faults({}, without=name).startswith(f"{field}5 layers up to 5 of the shapes (4, 3)")
    last = "pts_bbox_head.render_model.field.sdf_decoder.fc_c.5.weight"
    assert faults({}, without="img_backbone.stages.2.0.gamma") == "missing: img_backbone.stages.2.0.gamma"
    assert faults({}, without=last) == f"of another shape: {field[:-2]} (20, 3) for (24, 3)"


def test_another_decoder_is_told_by_its_sizes():
    spec = TemporalSpec((4, 4), channels=3, heights=2, frames=3, width=16, short_ffn=12, long_ffn=24, layers=3)
    text = faults({name: torch.ones(shape) for name, shape in decoder_names(spec).items()})
    for difference in (
        "cells is 16 in the file, 12 in the config",
        "frames is 3 in the file, 2 in the config",
        "layers is 3 in the file, 2 in the config",
        "long_ffn is 24 in the file, 8 in the config",
    ):
        assert difference in text
    assert "width" not in text
    assert "short_reads" not in text


def test_other_detectors_are_read_as_before():
    """On the original's ConvNeXt, but with other modules: nothing of them is known, and nothing refused."""
    file = {name: torch.randn(shape) for name, shape in backbone_names((2, 3)).items()}
    checkpoint = read_layout(file | {"img_rpn_head.conv.weight": torch.ones(1), "pts_bbox_head.a": torch.ones(1)})
    assert checkpoint.layout == "uvtr"
    assert fill_backbone(a_network().backbone, checkpoint).ignored == ["img_rpn_head.conv.weight", "pts_bbox_head.a"]
