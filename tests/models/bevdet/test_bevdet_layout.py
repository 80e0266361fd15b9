"""Public detector checkpoints: both ways, strict, and in the order of frames that each was trained with."""

import pytest
import torch

from models.bevdet.layout import bevdet_from_public, bevdet_to_public, detector_sizes, fill_bevdet, read_bevdet
from models.center_head import CenterPointHead
from models.center_spec import SIX_GROUPS, CenterHeadSpec
from models.layouts import WeightsMismatch, with_prefix
from small_detectors import VARIANTS, small_detector

RELEASED = sorted(VARIANTS.keys() - {"aligned"})  # which has the weights of bevdet4d


def with_head(seed: int = 0, **variant):
    torch.manual_seed(seed)
    head = CenterPointHead(CenterHeadSpec(8, (-8, -8, -5, 8, 8, 3), (1.0, 1.0), SIX_GROUPS, width=4))
    return small_detector(head, **variant)


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("prefix", ["", "module.", "ema_model.module."])
def test_there_and_back(name, prefix):
    net, other = with_head(**VARIANTS[name]), with_head(seed=1, **VARIANTS[name])
    public = bevdet_to_public(net.state_dict())
    assert {key.partition(".")[0] for key in public} >= {"img_backbone", "img_neck", "pts_bbox_head"}
    assert "img_backbone.stages.0.blocks.0.attn.w_msa.relative_position_index" in public
    filled = fill_bevdet(other, read_bevdet(with_prefix(public, prefix)))
    assert (filled.left, filled.ignored, sum(filled.resized.values())) == ([], [], 0)
    own = net.state_dict()
    assert sorted(filled.filled) == sorted(own)
    for key, value in other.state_dict().items():
        assert torch.equal(value, own[key]), key
    assert list(bevdet_from_public(bevdet_to_public(own))) == list(own)


@pytest.mark.parametrize("name", ["bevdepth", "bevstereo", "long stereo"])
def test_released_stereo_detectors_have_the_key_frame_last(name):
    net = small_detector(**VARIANTS[name])
    public = bevdet_to_public(net.state_dict())
    maps = list(torch.randn(net.spec.frames, 2, 4, 16, 16))
    theirs = maps[::-1] if net.spec.stereo else maps
    for layer in ("conv1", "downsample"):
        ours = getattr(net.bev_encoder.layers[0][0], layer)
        weight = public[f"img_bev_encoder_backbone.layers.0.0.{layer}.weight"]
        out = torch.nn.functional.conv2d(torch.cat(theirs, 1), weight, ours.bias, stride=2, padding=1)
        torch.testing.assert_close(out, ours(torch.cat(maps, 1)))


def test_a_running_mean_is_preferred():
    """As a second set of weights below a prefix; mmcv's hook keeps the plain weights under flattened names instead."""
    net, other = with_head(), with_head(seed=1)
    mean, plain = (bevdet_to_public(n.state_dict()) for n in (net, other))
    filled = fill_bevdet(other, read_bevdet(plain | with_prefix(mean, "ema.")))
    assert torch.equal(other.state_dict()["image_neck.conv.0.weight"], net.state_dict()["image_neck.conv.0.weight"])
    assert "img_neck.conv.0.weight" in filled.ignored
    swapped = {f"ema_{name.replace('.', '_')}": value for name, value in plain.items()}
    assert read_bevdet(mean | swapped).ignored == []


def test_what_follows_from_the_config_is_not_read():
    public = bevdet_to_public(small_detector().state_dict())
    constants = {f"img_view_transformer.{name}": torch.zeros(3) for name in ("dx", "bx", "nx", "frustum")}
    checkpoint = read_bevdet(public | constants | {"occ_head.weight": torch.zeros(1)})
    assert checkpoint.ignored == ["occ_head.weight"]
    assert not any("index" in name for name in checkpoint.weights)


@pytest.mark.parametrize(
    ("name", "table", "sentence"),
    [
        ("absolute_pos_embed", torch.rand(1, 8, 6, 6), "pretrain_grid is 6 in the file, 4 in the config"),
        (
            "stages.3.blocks.0.attn.w_msa.relative_position_bias_table",
            torch.rand(49, 1),
            r"window_sizes is \(4, 4, 4, 4\) in the file, \(4, 4, 4, 2\) in the config",
        ),
    ],
)
def test_other_windows_and_position_grids_are_another_detector(name, table, sentence):
    """A backbone that begins from such tables has them resized; a detector that is evaluated is not what it was."""
    public = bevdet_to_public(with_head().state_dict())
    other = with_head(seed=1)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(WeightsMismatch, match=sentence):
        fill_bevdet(other, read_bevdet(public | {f"img_backbone.{name}": table}))
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_what_a_file_says_of_its_detector():
    stereo = with_head(**VARIANTS["long stereo"])
    assert detector_sizes(stereo.state_dict()) == {
        "name": "swin",
        "embed_dim": 8,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 1, 1),
        "window_sizes": (4, 4, 4, 2),
        "patch_size": 4,
        "mlp_ratio": 4.0,
        "pretrain_grid": 4,
        "image_out": 8,
        "frames": 3,
        "camera_aware": True,
        "stereo": True,
        "bins": 8,
        "context": 4,
        "bev_widths": (8, 8, 8),
        "bev_out": 8,
        "classes": (1, 2, 2, 1, 2, 2),
    }
    plain = detector_sizes(with_head().state_dict())
    assert (plain["frames"], plain["camera_aware"], plain["bins"], plain["context"]) == (1, False, 8, 4)


@pytest.mark.parametrize(
    ("file", "config", "words"),
    [
        ("bevdet4d", "bevdet", ["frames is 2 in the file, 1 in the config", "unexpected: pre_process_net.layers.0.0"]),
        ("bevdet", "bevdet4d", ["frames is 1 in the file, 2 in the config", "missing: pre_encoder.layers.0.0"]),
        ("bevstereo", "bevdepth", ["stereo is True in the file, False in the config", "cost_volumn_net"]),
        ("bevdet4d", "bevstereo", ["camera_aware is False in the file, True in the config"]),
    ],
)
def test_another_detector_is_told_by_its_sizes(file, config, words):
    net = with_head(seed=1, **VARIANTS[config])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(WeightsMismatch) as error:
        fill_bevdet(net, read_bevdet(bevdet_to_public(with_head(**VARIANTS[file]).state_dict())))
    for word in words:
        assert word in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_torn_file_is_told():
    public = bevdet_to_public(with_head().state_dict())
    for name in ("img_bev_encoder_backbone.layers.0.0.conv1.weight", "img_view_transformer.depth_net.weight"):
        with pytest.raises(WeightsMismatch, match="missing"):
            fill_bevdet(with_head(), read_bevdet({key: value for key, value in public.items() if key != name}))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["backbone.conv1.weight"], "no public BEVDet on a Swin"),
        ([f"{p}.img_backbone.patch_embed.projection.weight" for p in "ab"], "no public BEVDet"),
        ([f"ema{p}.img_backbone.patch_embed.projection.weight" for p in "ab"], "several detectors"),
    ],
)
def test_no_detector(names, words):
    with pytest.raises(WeightsMismatch, match=words):
        read_bevdet({name: torch.zeros(1) for name in names})
