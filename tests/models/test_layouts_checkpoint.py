"""Which layout a file is in, what it fills, and the list of what does not fit."""

import pytest
import torch

from models.backbones.swin import Swin
from models.depth_bins import DepthBins
from models.geomim.decoder import DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransformSpec
from models.layouts import (
    WeightsMismatch,
    fill_backbone,
    fill_geomim,
    geomim_to_original,
    read_layout,
    swin_to_mmdet,
    swin_to_original,
    swin_to_timm,
    with_prefix,
    without_prefix,
)
from models.lift_splat import BevGrid
from small_swin import small_swin


def a_swin(windows=(4, 4, 2, 2), grid=8, embed_dim=8) -> Swin:
    return small_swin(windows=windows, grid=grid, embed_dim=embed_dim)


def a_geomim(decoder_depth=4, windows=(4, 4, 2, 2), **ablation) -> GeoMIM:
    """Every weight and buffer is random."""
    grid = BevGrid((-8.0, 8.0), (-8.0, 8.0), (-5.0, 5.0), 1.0)
    view = ViewTransformSpec(DepthBins(1, 11, 1), grid, context=6)
    decoder = DecoderSpec(16, 2, decoder_depth, **ablation)
    model = GeoMIM(a_swin(windows), GeoMIMSpec(decoder, view, fusion_heads=2, target_channels=5, patch=4))
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) * 5)
    return model


def mixmae(decoder_depth=4) -> dict[str, torch.Tensor]:
    """A file of MixMAE's pretraining: (1, h w, C) embeddings, a decoder on the last stage."""
    model = a_geomim(decoder_depth)
    state = model.state_dict()
    blocks = with_prefix(without_prefix(state, "decoder.blocks."), "decoder_blocks.")
    return (
        swin_to_original(model.backbone.state_dict())
        | blocks
        | {
            "mask_token": torch.rand(1, 1, 16),
            "decoder_pos_embed": torch.rand(1, 49, 16),
            "decoder_norm.weight": torch.rand(16),
            "decoder_norm.bias": torch.rand(16),
            "decoder_embed.weight": torch.rand(16, 64),
            "decoder_embed.bias": torch.rand(16),
            "decoder_pred.weight": torch.rand(3072, 16),
            "decoder_pred.bias": torch.rand(3072),
        }
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("root", ["", "module."])
@pytest.mark.parametrize(("write", "layout"), [(geomim_to_original, "original"), (dict, "geomim")])
def test_a_whole_checkpoint_fills_everything(write, layout, root):
    stored, model = a_geomim(), a_geomim()
    file = write(stored.state_dict())
    if layout == "original":
        names = ("lidar.backbone.conv_input.0.weight", "camera.vtransform.dx", "camera.vtransform.frustum")
        file |= {f"encoders.{name}": torch.ones(3) for name in names}
    checkpoint = read_layout(with_prefix(file, root))
    assert checkpoint.layout == layout
    assert checkpoint.whole
    filled = fill_geomim(model, checkpoint)
    assert same(model.state_dict(), stored.state_dict())
    assert filled.left == []
    assert filled.ignored == ([f"{root}encoders.lidar.backbone.conv_input.0.weight"] if layout == "original" else [])
    backbone = a_swin()
    assert any(
        name.startswith(f"{root}encoders" if layout == "original" else f"{root}decoder")
        for name in fill_backbone(backbone, checkpoint).ignored
    )
    assert same(backbone.state_dict(), stored.backbone.state_dict())


@pytest.mark.parametrize(
    ("write", "layout"),
    [(swin_to_mmdet, "mmdet"), (dict, "geomim"), (swin_to_original, "swin"), (swin_to_timm, "timm")],
)
@pytest.mark.parametrize("prefix", ["", "backbone.", "img_backbone.", "module.", "encoders.camera.backbone."])
def test_a_backbone_is_found_below_any_prefix(write, layout, prefix):
    stored, model = a_swin(), a_geomim()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    others = {
        "head.weight": torch.ones(2),
        "img_neck.conv.0.weight": torch.ones(2),
        f"{prefix}norm0.weight": torch.ones(2),
    }
    checkpoint = read_layout(with_prefix(write(stored.state_dict()), prefix) | others)
    assert (checkpoint.layout, checkpoint.whole) == (layout, False)
    filled = fill_geomim(model, checkpoint)
    assert filled.ignored == sorted(others)
    counts = {name for name in before if name.endswith("num_batches_tracked")}
    assert set(filled.filled) | set(filled.left) | counts == before.keys()
    for name, value in model.state_dict().items():
        wanted = stored.state_dict()[name.removeprefix("backbone.")] if name in filled.filled else before[name]
        assert torch.equal(value, wanted), name


def test_a_swin_of_imagenet_leaves_what_it_does_not_have():
    """mmdet's for detection: norms of other stages, no position embedding."""
    file = {
        n: v for n, v in swin_to_mmdet(a_swin().state_dict()).items() if n != "absolute_pos_embed" and "norm2" not in n
    }
    file |= {n: v for n, v in swin_to_mmdet(a_swin().state_dict()).items() if ".blocks." in n}
    swin = a_swin((8, 8, 4, 4), grid=12)
    filled = fill_backbone(swin, read_layout(file | {"norm0.weight": torch.ones(8)}))
    assert filled.left == ["backbone.absolute_pos_embed", "backbone.norm2.weight", "backbone.norm2.bias"]
    assert dict(filled.resized) == {"bias tables 7x7 to 15x15": 2, "bias tables 3x3 to 7x7": 2}
    text = str(filled)
    assert "resized: bias tables 7x7 to 15x15 (2), bias tables 3x3 to 7x7 (2)" in text
    assert "left as initialised: backbone.absolute_pos_embed, backbone.norm2 (2)" in text
    assert "ignored: norm0" in text


def test_mixmae_begins_the_decoder_too():
    file, model = mixmae(), a_geomim()
    filled = fill_geomim(model, read_layout(file))
    layers = ("decoder_embed", "decoder_pred", "norm")
    assert filled.ignored == [f"{layer}.{kind}" for layer in layers for kind in ("bias", "weight")]
    parts = {name.split(".")[1] for name in filled.left if name.startswith("decoder.")}
    own = {"embed", "cross_blocks", "camera_gate", "geometry_blocks", "geometry_cross_blocks", "geometry_norm"}
    assert parts == own
    assert {name for name in filled.left if name.startswith("backbone.")} == {
        f"backbone.{norm}.{kind}" for norm in ("norm2", "norm3") for kind in ("weight", "bias")
    }
    assert torch.equal(model.decoder.mask_token, file["mask_token"])
    assert torch.equal(model.decoder.pos_embed[0, :, 2, 3], file["decoder_pos_embed"][0, 17])
    assert torch.equal(model.decoder.blocks[3].mlp.fc1.weight, file["decoder_blocks.3.mlp.fc1.weight"])
    assert torch.equal(model.backbone.absolute_pos_embed[0, :, 1, 2], file["absolute_pos_embed"][0, 10])


def test_a_decoder_of_another_depth_is_left():
    model = a_geomim(decoder_depth=8)
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    filled = fill_geomim(model, read_layout(mixmae(decoder_depth=4)))
    assert same(model.decoder.state_dict(), before)
    assert {"mask_token", "decoder_blocks.0.norm1.weight"} < set(filled.ignored)


def faults(module, file) -> str:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        (fill_backbone if isinstance(module, Swin) else fill_geomim)(module, read_layout(file))
    assert same(module.state_dict(), before)  # all or nothing
    return str(caught.value)


def test_what_does_not_fit_is_listed():
    state = swin_to_mmdet(a_swin().state_dict())
    del state["stages.1.blocks.0.norm1.weight"]
    state["stages.1.blocks.0.extra"] = torch.ones(1)
    state["norm3.weight"] = torch.ones(3)
    state["stages.3.blocks.0.norm2.bias"][0] = torch.nan
    text = faults(a_swin(), with_prefix(state, "img_backbone."))
    assert "missing: backbone.stages.1.blocks.0.norm1.weight;" in text
    assert "unexpected: img_backbone.stages.1.blocks.0.extra;" in text
    assert "of another shape: img_backbone.norm3.weight (3,) for (64,);" in text
    assert "not finite: img_backbone.stages.3.blocks.0.norm2.bias" in text
    assert "embed_dim" not in text

    text = faults(
        a_swin(),
        small_swin(windows=(4, 4, 2, 2), depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 3), embed_dim=12).state_dict(),
    )
    for difference in (
        "embed_dim is 12 in the file, 8 in the config",
        "depths is (1, 1, 2, 1) in the file, (1, 1, 1, 1) in the config",
        "num_heads is (1, 2, 2, 3) in the file, (1, 2, 2, 4) in the config",
        "in all)",
    ):
        assert difference in text

    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    for rows in (7 * 5, 6 * 6):  # of no square window
        file = swin_to_original(a_swin().state_dict()) | {name: torch.ones(rows, 1)}
        assert f"{name} ({rows}, 1) for (49, 1)" in faults(a_swin(), file)


def test_a_whole_checkpoint_must_be_whole():
    file = geomim_to_original(a_geomim().state_dict())
    del file["prediction_head.bias"]
    assert faults(a_geomim(), file) == "missing: head.bias"
    text = faults(a_geomim(geometry_branch=False), geomim_to_original(a_geomim().state_dict()))
    assert "unexpected: encoders.camera.backbone.cam_pose.bn.bias" in text


@pytest.mark.parametrize("broken", [{}, {"features.0.weight": torch.ones(1)}])
def test_a_file_without_a_swin(broken):
    with pytest.raises(WeightsMismatch, match=r"no Swin in it.*(no tensors|features\.0\.weight)"):
        read_layout(broken)


def test_a_file_with_two_swins():
    state = a_swin().state_dict()
    with pytest.raises(WeightsMismatch, match=r"2 Swins in it, below 'student\.', 'teacher\.'"):
        read_layout(with_prefix(state, "student.") | with_prefix(state, "teacher."))
