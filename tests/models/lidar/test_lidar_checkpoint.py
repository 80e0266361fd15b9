from dataclasses import replace

import numpy as np
import pytest
import torch

from models.center_head import CenterPointHead
from models.center_spec import ONE_GROUP, CenterHeadSpec
from models.layouts import WeightsMismatch
from models.lidar.bev_backbone import BEVBackbone, BevBackboneSpec
from models.lidar.box_code import Convention
from models.lidar.checkpoint import (
    LAYOUTS,
    MIT,
    MMDET3D,
    OURS,
    convention_of,
    described,
    load_detector,
    load_encoder,
    why_encoder_alone,
)
from models.lidar.detector import LidarDetector, LidarSpec, build_detector, voxel_batch
from models.lidar.encoder import EncoderSpec, SparseEncoder
from models.lidar.grid import VoxelGrid, encoder_output_shape
from models.lidar.transfusion import TransFusionHead, TransFusionSpec

GRID = VoxelGrid((-8.0, -6.4, -4.0, 8.0, 6.4, 4.0), (0.2, 0.2, 0.25))
WIDE = VoxelGrid((-12.8, -6.4, -4.0, 12.8, 6.4, 4.0), (0.2, 0.2, 0.25))  # 16x8 cells: three strides of two divide them


def encoder(seed: int, **sizes) -> SparseEncoder:
    torch.manual_seed(seed)
    sizes = {"widths": (4, 6, 8, 8), "out_width": 8, "blocks": (1, 1, 1, 1)} | sizes
    return SparseEncoder(GRID.sparse_shape, EncoderSpec(**sizes))


def detector(
    seed: int,
    head: type = TransFusionHead,
    behind: dict | None = None,
    convention: Convention = Convention.MMDET3D,
    **sizes,
) -> LidarDetector:
    """behind: the encoder, other fields of BevBackboneSpec."""
    torch.manual_seed(seed)
    fields = {"widths": (8, 12), "layers": (1, 1), "neck_widths": (8, 8)} | (behind or {})
    backbone = BevBackboneSpec(encoder_output_shape(GRID.sparse_shape, 8)[0], **fields)
    cell = (1.6 / backbone.scale, 1.6 / backbone.scale)
    if head is TransFusionHead:
        made = TransFusionHead(
            TransFusionSpec(backbone.out_channels, GRID.point_range, cell, queries=20, width=16, heads=2, ffn_width=24),
            convention,
        )
    else:
        made = CenterPointHead(CenterHeadSpec(backbone.out_channels, GRID.point_range, cell, ONE_GROUP, 8))
    whole = LidarDetector(encoder(seed, **sizes), BEVBackbone(backbone), made)
    for name, buffer in whole.named_buffers():  # statistics that are not those of every fresh network
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return whole.eval()


# From the published files' lists of names. The others follow the same pattern.
PUBLISHED = {
    "encoder.conv_input.0.weight": {
        MMDET3D: "pts_middle_encoder.conv_input.0.weight",
        MIT: "encoders.lidar.backbone.conv_input.0.weight",
    },
    "encoder.encoder_layers.encoder_layer1.0.conv1.weight": {
        MMDET3D: "pts_middle_encoder.encoder_layers.encoder_layer1.0.conv1.weight",
        MIT: "encoders.lidar.backbone.encoder_layers.encoder_layer1.0.conv1.weight",
    },
    "bev_backbone.backbone.blocks.1.3.weight": {
        MMDET3D: "pts_backbone.blocks.1.3.weight",
        MIT: "decoder.backbone.blocks.1.3.weight",
    },
    "bev_backbone.neck.deblocks.1.1.running_var": {
        MMDET3D: "pts_neck.deblocks.1.1.running_var",
        MIT: "decoder.neck.deblocks.1.1.running_var",
    },
    "head.shared_conv.bias": {MMDET3D: "bbox_head.shared_conv.bias", MIT: "heads.object.shared_conv.bias"},
    "head.heatmap_head.0.bn.weight": {
        MMDET3D: "bbox_head.heatmap_head.0.bn.weight",
        MIT: "heads.object.heatmap_head.0.bn.weight",
    },
    "head.class_encoding.weight": {
        MMDET3D: "bbox_head.class_encoding.weight",
        MIT: "heads.object.class_encoding.weight",
    },
    "head.decoder.0.self_attn.in_proj_weight": {
        MMDET3D: "bbox_head.decoder.0.self_attn.attn.in_proj_weight",
        MIT: "heads.object.decoder.0.self_attn.in_proj_weight",
    },
    "head.decoder.0.cross_attn.out_proj.bias": {
        MMDET3D: "bbox_head.decoder.0.cross_attn.attn.out_proj.bias",
        MIT: "heads.object.decoder.0.multihead_attn.out_proj.bias",
    },
    "head.decoder.0.linear1.weight": {
        MMDET3D: "bbox_head.decoder.0.ffn.layers.0.0.weight",
        MIT: "heads.object.decoder.0.linear1.weight",
    },
    "head.decoder.0.linear2.bias": {
        MMDET3D: "bbox_head.decoder.0.ffn.layers.1.bias",
        MIT: "heads.object.decoder.0.linear2.bias",
    },
    "head.decoder.0.norm1.weight": {
        MMDET3D: "bbox_head.decoder.0.norms.0.weight",
        MIT: "heads.object.decoder.0.norm1.weight",
    },
    "head.decoder.0.norm3.bias": {
        MMDET3D: "bbox_head.decoder.0.norms.2.bias",
        MIT: "heads.object.decoder.0.norm3.bias",
    },
    "head.decoder.0.self_posembed.position_embedding_head.1.running_mean": {
        MMDET3D: "bbox_head.decoder.0.self_posembed.position_embedding_head.1.running_mean",
        MIT: "heads.object.decoder.0.self_posembed.position_embedding_head.1.running_mean",
    },
    "head.prediction_heads.0.rot.0.conv.weight": {
        MMDET3D: "bbox_head.prediction_heads.0.rot.0.conv.weight",
        MIT: "heads.object.prediction_heads.0.rot.0.conv.weight",
    },
}


def as_file(source: torch.nn.Module, to_file, spconv2: bool) -> dict[str, torch.Tensor]:
    """The file that the other project would have written, without BatchNorm's counts of batches."""
    state = {k: t for k, t in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    turned = {k: t.permute(4, 0, 1, 2, 3).contiguous() if spconv2 and t.ndim == 5 else t for k, t in state.items()}
    return {to_file(k): t.clone() for k, t in turned.items()}


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine = b.state_dict()
    return all(torch.equal(mine[k], t) for k, t in a.state_dict().items() if not k.endswith("num_batches_tracked"))


def test_names_are_the_published_ones():
    own = detector(0).state_dict()
    for name, published in PUBLISHED.items():
        assert name in own
        for layout, theirs in published.items():
            assert layout.to_file(name) == theirs
    for layout in LAYOUTS:
        assert [layout.names.to_ours(layout.to_file(name)) for name in own] == list(own)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("spconv2", [False, True])
def test_a_whole_detector_out_of_each_layout(layout, spconv2):
    source = detector(0)
    beside = {
        OURS: {},
        MMDET3D: {"data_preprocessor.mean": torch.zeros(3), "pts_voxel_encoder.x": torch.zeros(1)},
        MIT: {},
    }[layout]
    given = as_file(source, layout.to_file, spconv2) | beside
    target = detector(1, convention=convention_of(given))
    loaded = load_detector(target, given)
    assert loaded.layout is layout
    assert loaded.ignored == sorted(beside)
    assert same(source, target)
    assert target.head.convention == {OURS: "mmdetection3d", MMDET3D: "mmdetection3d", MIT: "MIT"}[layout]

    cloud = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0)) * 16 - 8
    batch = voxel_batch([cloud], GRID)
    with torch.inference_mode():
        wanted, got = source(batch), target(batch)
    assert all(torch.equal(wanted.layers[0][part], got.layers[0][part]) for part in wanted.layers[0])
    (wanted,), (got,) = source.head.predict(wanted), target.head.predict(got)
    assert np.array_equal(wanted.scores, got.scores)
    assert np.array_equal(wanted.sizes, got.sizes) == (layout is not MIT)


def test_a_head_of_another_convention_is_no_head_for_the_file():
    """Which would load, and give boxes that lie elsewhere."""
    given = as_file(detector(0), MIT.to_file, spconv2=False)
    with pytest.raises(ValueError, match="says boxes as mmdetection3d does, the weights as MIT does"):
        load_detector(detector(1), given)


def test_a_fitted_centerpoint_detector():
    source, target = detector(0, CenterPointHead), detector(1, CenterPointHead)
    assert load_detector(target, source.state_dict()) == (OURS, [])
    assert same(source, target)


def known(net: LidarDetector) -> LidarSpec:
    """What one must know to read the file: grid and encoder."""
    return LidarSpec(GRID, net.encoder.spec)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("spconv2", [False, True])
@pytest.mark.parametrize(
    "behind",
    [
        {},
        {"neck_widths": (5, 7)},
        {"upsamples": (2, 4)},
        {"upsamples": (4, 8), "neck_widths": (6, 6)},
        {"upsamples": (0.5, 1), "neck_widths": (6, 7)},
        {"upsamples": (1, 2), "neck_widths": (6, 7), "conv_if_same": False},
        {
            "widths": (8, 12, 6),
            "layers": (1, 0, 2),
            "strides": (1, 2, 2),
            "neck_widths": (4, 5, 7),
            "upsamples": (1, 2, 4),
        },
    ],
    ids=str,
)
def test_shapes_tell_what_is_behind_the_encoder(layout, spconv2, behind):
    """Levels, their widths, layers and strides, and the head: all is built again as it was, and takes the weights."""
    source = detector(0, behind=behind)
    given = as_file(source, layout.to_file, spconv2)
    spec = described(given, replace(known(source), grid=WIDE))
    again = build_detector(spec, layout.convention)
    load_detector(again, given)
    assert same(source, again)
    fields = ("width", "ffn_width", "num_classes", "decoder_layers", "branch_width", "branch_depths", "cell_size")
    for field in fields:
        assert getattr(spec.head, field) == pytest.approx(getattr(source.head.spec, field)), field
    bev = torch.randn(1, 8, 8, 16)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval().bev_backbone(bev), source.bev_backbone(bev), rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_file_whose_head_is_named_otherwise_is_not_taken_for_an_encoder(layout):
    source = detector(0)
    given = as_file(source, layout.to_file, spconv2=True)
    head = layout.to_file("head.")
    other = {name.replace(head, "my_head.") if name.startswith(head) else name: t for name, t in given.items()}
    assert why_encoder_alone(other) is None
    count = sum(name.startswith(head) for name in given)
    with pytest.raises(WeightsMismatch, match=rf"{count} of its {len(given)} tensors .*my_head \({count}\)"):
        described(other, known(source))


def test_of_which_files_the_encoder_alone_serves():
    given = as_file(detector(0), MMDET3D.to_file, spconv2=True)
    assert why_encoder_alone(given) is None
    assert "cameras and LiDAR" in why_encoder_alone(given | {"fusion_layer.0.weight": torch.zeros(1)})
    for prefix in (*(known.encoder for known in LAYOUTS), ""):
        alone = as_file(encoder(0), lambda name, prefix=prefix: prefix + name, spconv2=True)
        assert "no other part" in why_encoder_alone(alone)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("bbox_head.prediction_heads.0.heatmap.0.conv.weight"), "no SECOND, SECONDFPN and TransFusion"),
        (lambda t: t.pop("pts_neck.deblocks.1.0.weight"), r"not one number a level: .*upsamples \(1,\)"),
        (
            lambda t: t.update(
                {f"pts_neck.deblocks.{i}.0.weight": torch.zeros(w, 8, i + 2, i + 2) for i, w in ((0, 8), (1, 12))}
            ),
            "branches of unequal sizes, as far as shapes tell",
        ),
        (
            lambda t: t.update({"bbox_head.class_encoding.weight": torch.zeros(20, 10, 1)}),
            "width of 20 is no multiple of its 8 attention heads, as far as shapes tell; its public config would say",
        ),
    ],
)
def test_what_shapes_leave_open_is_a_sentence(change, sentence):
    source = detector(0)
    given = as_file(source, MMDET3D.to_file, spconv2=True)
    change(given)
    with pytest.raises(WeightsMismatch, match=sentence):
        described(given, known(source))


def test_parameters_of_the_published_network():
    net = LidarDetector(
        SparseEncoder((1440, 1440, 41), EncoderSpec()),
        BEVBackbone(BevBackboneSpec()),
        TransFusionHead(TransFusionSpec(512, (-54, -54, -5, 54, 54, 3), (0.6, 0.6))),
    )
    parts = (net.encoder, net.bev_backbone.backbone, net.bev_backbone.neck, net.head, net)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [2_694_352, 4_280_832, 295_936, 1_034_910, 8_306_030]


def failure(target: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    """What loading says, having left everything as it was."""
    before = {name: t.clone() for name, t in target.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        (load_encoder if isinstance(target, SparseEncoder) else load_detector)(target, tensors)
    assert all(torch.equal(target.state_dict()[name], t) for name, t in before.items())
    return str(caught.value)


def test_every_fault_is_named_as_in_the_file_and_nothing_is_changed():
    target = detector(1)
    given = as_file(detector(0), MMDET3D.to_file, spconv2=True)
    del given["bbox_head.decoder.0.norms.1.bias"]
    given["pts_neck.extra"] = torch.zeros(1)
    given["something.else"] = torch.zeros(1)
    given["pts_middle_encoder.conv_out.1.weight"] = torch.zeros(3)
    given["bbox_head.decoder.0.ffn.layers.1.bias"] = torch.full((16,), torch.nan)
    text = failure(target, given)
    assert text == (
        "missing: bbox_head.decoder.0.norms.1.bias; unexpected: pts_neck.extra, something.else; "
        "of another shape: pts_middle_encoder.conv_out.1.weight (3,) for (8,); "
        "with values that are not finite: bbox_head.decoder.0.ffn.layers.1.bias"
    )
    assert target.head.convention is Convention.MMDET3D


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"widths": (4, 6, 8, 16)}, "widths is (4, 6, 8, 16) in the file, (4, 6, 8, 8) in the config"),
        ({"blocks": (2, 2, 2, 2)}, "blocks is 2 in the file, 1 in the config"),
        ({"behind": {"neck_widths": (8, 6)}}, "neck_widths is (8, 6) in the file, (8, 8) in the config"),
        ({"head": CenterPointHead}, "TransFusion's classes is none in the file, 10 in the config"),
    ],
)
def test_another_network_is_told_by_its_sizes(layout, other, said):
    target = detector(1, convention=layout.convention)
    text = failure(target, as_file(detector(0, **other), layout.to_file, spconv2=True))
    assert said in text
    assert len(text) < 5000


def test_long_lists_are_cut():
    given = as_file(detector(0), MIT.to_file, spconv2=False)
    target = detector(1, convention=Convention.MIT)
    text = failure(target, {k: t for k, t in given.items() if not k.startswith("heads.object.prediction_heads")})
    assert text.count("heads.object.prediction_heads") == 12
    assert f"({sum(k.startswith('heads.object.prediction_heads') for k in given)} in all)" in text


def test_a_camera_and_lidar_detector_serves_its_encoder_alone():
    given = as_file(detector(0), MIT.to_file, spconv2=False)
    given |= {"encoders.camera.neck.weight": torch.zeros(1), "fuser.0.weight": torch.zeros(1)}
    assert "only its encoder can serve" in failure(detector(1), given)
    target = encoder(1)
    unused = load_encoder(target, given)
    assert same(detector(0).encoder, target)
    assert unused == sorted(name for name in given if not name.startswith("encoders.lidar."))


@pytest.mark.parametrize("prefix", ["encoder.", "pts_middle_encoder.", "encoders.lidar.backbone.", ""])
@pytest.mark.parametrize("spconv2", [False, True])
def test_an_encoder_alone(prefix, spconv2):
    source, target = encoder(0), encoder(1)
    given = as_file(source, lambda name: prefix + name, spconv2)
    assert load_encoder(target, given | {"classifier.weight": torch.zeros(1)}) == ["classifier.weight"]
    assert same(source, target)
    del given[prefix + "conv_out.1.bias"]
    assert failure(target, given) == f"missing: {prefix}conv_out.1.bias"


def test_a_file_without_an_encoder():
    for target in (encoder(0), detector(0)):
        assert "no sparse encoder" in failure(target, {"backbone.conv1.weight": torch.zeros(1)})
        for shape in ((3, 3, 3, 7, 4), (3, 3, 3), (5,)):
            assert "neither" in failure(target, {"encoder.conv_input.0.weight": torch.zeros(shape)})
