"""Every layout written is the layout read, and is the one that other people's code has."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backbones.swin import PatchMerging, Swin
from models.layouts import (
    fill_backbone,
    geomim_from_original,
    geomim_to_original,
    read_layout,
    swin_from_mmdet,
    swin_from_original,
    swin_sizes,
    swin_to_mmdet,
    swin_to_original,
    swin_to_timm,
    with_prefix,
    without_prefix,
)
from models.layouts.swin import merging_from_original, merging_to_original
from small_swin import small_swin

ORACLES = Path(__file__).parents[2].parent / "shared/oracles"


def a_swin(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), windows=(4, 4, 2, 2), grid=8) -> Swin:
    """Every weight is random: norms and biases, too."""
    swin = small_swin(windows, depths, num_heads, grid, embed_dim).eval()
    for parameter in swin.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return swin


def oracle(name: str) -> dict[str, torch.Tensor]:
    path = ORACLES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    arrays = np.load(path, allow_pickle=False)
    return {key.removeprefix("sd/"): torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("sd/")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


swins = st.builds(
    a_swin,
    embed_dim=st.sampled_from((4, 8, 12)),
    depths=st.tuples(*[st.integers(1, 2)] * 4),
    num_heads=st.just((1, 2, 4, 2)),
    windows=st.tuples(*[st.integers(1, 5)] * 4),
    grid=st.integers(1, 6),
)
# What a layout has no place for.
LOST = {swin_to_mmdet: set(), swin_to_original: {"norm2."}, swin_to_timm: {"norm2.", "absolute_pos_embed"}}


@given(swins)
@settings(max_examples=15, deadline=None)
def test_round_trips_are_exact(swin):
    state = swin.state_dict()
    assert swin_sizes(state) == {
        "embed_dim": swin.channels[0],
        "patch_size": 4,
        "mlp_ratio": 4.0,
        "depths": tuple(len(stage.blocks) for stage in swin.stages),
        "num_heads": tuple(stage.blocks[0].attn.num_heads for stage in swin.stages),
        "window_sizes": tuple(stage.blocks[0].attn.window for stage in swin.stages),
        "pretrain_grid": swin.absolute_pos_embed.shape[-1],
    }
    for write, lost in LOST.items():
        kept = {name: value for name, value in state.items() if not name.startswith(tuple(lost or {"none"}))}
        back = read_layout(write(state))
        assert same(without_prefix(back.weights, "backbone."), kept)
        assert not back.ignored
    assert same(swin_from_mmdet(swin_to_mmdet(state)), state)


@pytest.mark.parametrize("write", LOST)
def test_the_network_is_the_same_after_a_round_trip(write):
    swin, other, images = a_swin(), a_swin(), torch.randn(1, 3, 64, 96)
    for name, value in swin.state_dict().items():
        if name.startswith(tuple(LOST[write] or {"none"})):
            other.state_dict()[name].copy_(value)
    fill_backbone(other, read_layout(write(swin.state_dict())))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(swin(images), other(images), strict=True))


def test_patch_merging_of_the_original_with_its_weights():
    """The original stacks four strided views of the map: rows first."""
    ours, x = PatchMerging(6), torch.randn(2, 4, 6, 6)
    torch.nn.init.normal_(ours.norm.weight)
    torch.nn.init.normal_(ours.norm.bias)
    stacked = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
    weight, bias, reduction = map(merging_to_original, (ours.norm.weight, ours.norm.bias, ours.reduction.weight))
    theirs = torch.nn.functional.layer_norm(stacked, (24,), weight, bias) @ reduction.T
    torch.testing.assert_close(theirs, ours(x), atol=1e-5, rtol=1e-5)
    assert torch.equal(merging_from_original(reduction), ours.reduction.weight)


def test_mmdets_own_swin_takes_the_weights_and_agrees():
    importlib.import_module("models.openmmlab")  # before mmdet: it may stand in for mmcv's operators
    from mmdet.models.backbones.swin import SwinTransformer

    # One block a stage: mmdet shifts the windows of every second one.
    swin = a_swin(depths=(1, 1, 1, 1), windows=(4, 4, 4, 4), grid=16)
    theirs = SwinTransformer(64, 3, 8, 4, 4, 4, (1, 1, 1, 1), (1, 2, 2, 4), out_indices=(2, 3))
    theirs.eval()  # returns None
    state = swin_to_mmdet(swin.state_dict())
    swin.absolute_pos_embed.data.zero_()
    del state["absolute_pos_embed"]  # of another form there, and not used by default
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, wanted in zip(swin(images)[2:], theirs(images), strict=True):
            torch.testing.assert_close(ours, wanted)


def test_names_of_the_original_swin_and_of_timm():
    state = a_swin().state_dict()
    block = {
        f"layers.1.blocks.1.{name}"
        for name in (
            *(
                f"{layer}.{kind}"
                for layer in ("norm1", "norm2", "attn.qkv", "attn.proj")
                for kind in ("weight", "bias")
            ),
            *(f"mlp.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")),
            "attn.relative_position_bias_table",
        )
    }
    index = {"layers.1.blocks.1.attn.relative_position_index"}
    merging = {"downsample.norm.weight", "downsample.norm.bias", "downsample.reduction.weight"}
    common = {f"patch_embed.{name}.{kind}" for name in ("proj", "norm") for kind in ("weight", "bias")}
    common |= {"norm.weight", "norm.bias"}
    for written, stages, own, buffers in (
        (swin_to_original(state), (0, 1, 2), {"absolute_pos_embed"}, index),
        (swin_to_timm(state), (1, 2, 3), set(), set()),
    ):
        assert {name for name in written if ".blocks." not in name} == (
            common | own | {f"layers.{stage}.{name}" for stage in stages for name in merging}
        )
        assert {name for name in written if name.startswith("layers.1.blocks.1.")} == block | buffers
    assert swin_to_original(state)["absolute_pos_embed"].shape == (1, 64, 8)
    assert swin_to_original(state)["layers.0.blocks.0.attn.relative_position_index"].shape == (16, 16)


def test_both_of_timms_ways_to_number_the_merging_are_read():
    state = a_swin().state_dict()
    late = swin_to_timm(state)
    early = {name: value for name, value in swin_to_original(state).items() if name in late or "downsample" in name}
    assert "layers.3.downsample.norm.weight" in late
    assert "layers.3.downsample.norm.weight" not in early
    assert same(swin_from_original(late), swin_from_original(early))


def test_the_originals_student_comes_back_name_for_name():
    stored = oracle("geomim_student.npz")
    written = geomim_to_original(geomim_from_original(stored))
    assert same(written, stored)
    assert {name: value.dtype for name, value in written.items()} == {n: v.dtype for n, v in stored.items()}
    assert any(name.endswith("up_smooth_p4.attn.w_msa.relative_position_index") for name in written)


def without_index_buffers_that_are_not_in(stored, written):
    """The files keep some of them only."""
    return {n: v for n, v in written.items() if n in stored or not n.endswith("relative_position_index")}


def test_the_originals_whole_model_comes_back_name_for_name():
    """The geometry of the view transform is no weight."""
    stored = oracle("geomim_full.npz")
    written = geomim_to_original(geomim_from_original(stored))
    constants = {f"encoders.camera.vtransform.{name}" for name in ("dx", "bx", "nx")}
    weights = {name: value for name, value in stored.items() if name not in constants}
    assert same(without_index_buffers_that_are_not_in(stored, written), weights)


def test_the_finetuned_backbone_comes_back_name_for_name():
    stored = {n: v for n, v in oracle("bevdet_backbone.npz").items() if n.startswith("img_backbone.")}
    written = with_prefix(swin_to_mmdet(swin_from_mmdet(without_prefix(stored, "img_backbone."))), "img_backbone.")
    assert same(without_index_buffers_that_are_not_in(stored, written), stored)
