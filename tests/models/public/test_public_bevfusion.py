"""BEVFusion's LiDAR configs, MIT's and mmdetection3d's: every field is read, or refused by name."""

from operator import attrgetter

import pytest
import torch

from models.lidar.checkpoint import MIT, MMDET3D, load_detector
from models.lidar.detector import build_detector, voxel_batch
from models.norm import Norm
from models.public.bevfusion import read_lidar, read_sweeps
from models.public.used import UnreadableConfig
from public_configs import GEOMIM, MIT_LIDAR, MM_LIDAR, RANGE, changed


def test_both_codes_say_the_same_network():
    spec = read_lidar(MIT_LIDAR)
    assert spec == read_lidar(MM_LIDAR)
    assert (spec.grid.point_range, spec.grid.max_points, spec.grid.max_voxels) == (tuple(RANGE), 10, 16000)
    assert (spec.bev_backbone.neck_widths, spec.head.in_channels) == ((6, 10), 16)
    assert read_sweeps(MIT_LIDAR) == read_sweeps(MM_LIDAR) == 9
    assert read_sweeps({"model": {}}) is None
    assert read_sweeps(changed(MIT_LIDAR, "test_pipeline", MIT_LIDAR["test_pipeline"][:1])) == 0


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("0.use_dim", 4, r"test_pipeline\[0\]\.use_dim is 4: only \[0, 1, 2, 3, 4\] is implemented"),
        ("0.use_dim", None, r"test_pipeline\[0\]\.use_dim is \[0, 1, 2\]: only"),  # the public code's default
        ("0.load_dim", None, r"test_pipeline\[0\]\.load_dim is 6: only 5"),
        ("0.reduce_beams", 4, r"test_pipeline\[0\]\.reduce_beams is 4: only 32"),
        ("0.load_augmented", "pointpainting", r"load_augmented is 'pointpainting': only None"),
        ("0.coord_type", "DEPTH", "coord_type is 'DEPTH': only 'LIDAR'"),
        ("0.shift_height", True, "shift_height is True: only False"),
        ("1.use_dim", [0, 1, 2, 4], r"test_pipeline\[1\]\.use_dim is \[0, 1, 2, 4\]: only"),
        ("1.reduce_beams", 4, r"test_pipeline\[1\]\.reduce_beams is 4"),
        ("1.remove_close", False, "remove_close is False: only True"),
        ("1.remove_close", None, "remove_close is False: only True"),
        ("1.pad_sweeps", 1, r"nothing here knows what test_pipeline\[1\]\.pad_sweeps means"),
        ("2", 3, r"test_pipeline\[2\] must be a section of keys, not 3"),
        ("2", {}, r"test_pipeline\[2\]\.type is missing"),
    ],
)
def test_points_that_are_loaded_otherwise_are_refused_by_name(place, value, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read_sweeps(changed(MIT_LIDAR, f"test_pipeline.{place}", value))


@pytest.mark.parametrize(("steps", "sentence"), [("${x}", "is a reference"), (3, "must be a list"), (None, "a list")])
def test_steps_that_are_no_list_are_refused(steps, sentence):
    with pytest.raises(UnreadableConfig, match=rf"test_pipeline .*{sentence}"):
        read_sweeps(MIT_LIDAR | {"test_pipeline": steps})


ENCODER, SECOND, FPN = (f"model.{part}" for part in ("encoders.lidar.backbone", "decoder.backbone", "decoder.neck"))
HEAD = "model.heads.object"


@pytest.mark.parametrize(
    ("place", "value", "field", "read"),
    [
        ("model.encoders.lidar.voxelize.max_voxels", 500, "grid.max_voxels", 500),
        (f"{ENCODER}.encoder_channels", [[4, 6], [6, 6, 6, 8], [8, 8, 8], [8]], "encoder.blocks", (1, 3, 2, 1)),
        (f"{ENCODER}.encoder_paddings.0", [0, 0, [1, 1, 0]], "encoder.paddings", ((1, 1, 0), (1, 1, 1), (1, 1, 0))),
        (f"{ENCODER}.norm_cfg", {"type": "BN1d", "eps": 1e-4, "momentum": 0.2}, "encoder.norm", Norm(1e-4, 0.2)),
        (f"{SECOND}.layer_nums", [0, 3], "bev_backbone.layers", (0, 3)),
        (f"{SECOND}.norm_cfg.eps", 1e-5, "bev_backbone.norm", Norm(1e-5, 0.01)),
        (f"{FPN}.norm_cfg", {"type": "BN"}, "bev_backbone.neck_norm", Norm(1e-5, 0.1)),
        (f"{FPN}.use_conv_for_no_stride", False, "bev_backbone.conv_if_same", False),
        (f"{HEAD}.num_heads", 4, "head.heads", 4),
        (f"{HEAD}.num_proposals", 7, "head.queries", 7),
        (f"{HEAD}.nms_kernel_size", 5, "head.peak_size", 5),
        (f"{HEAD}.ffn_channel", 40, "head.ffn_width", 40),
        (f"{HEAD}.num_decoder_layers", 3, "head.decoder_layers", 3),
        (f"{HEAD}.bn_momentum", 0.01, "head.norm", Norm(1e-5, 0.01)),
        (f"{HEAD}.common_heads.rot", [2, 3], "head.branch_depths", (2, 2, 2, 3, 2, 2)),
        (f"{HEAD}.num_heatmap_convs", 3, "head.branch_depths", (2, 2, 2, 2, 2, 3)),
        (f"{HEAD}.bbox_coder.post_center_range", [-5, -4, -3, 2, 3, 4], "head.keep_range", (-5, -4, -3, 2, 3, 4)),
        (f"{HEAD}.bbox_coder.score_threshold", 0.3, "head.score_threshold", 0.3),
    ],
)
def test_a_setting_of_the_file_is_one_of_the_network(place, value, field, read):
    """What a config says and no tensor's shape shows, with the rest as it was; and the network can be built."""
    config = changed(MIT_LIDAR, place, value)
    if "encoder_channels" in place:
        config = changed(config, f"{ENCODER}.encoder_paddings", [[0, 1], [0, 0, 0, 1], [0, 0, [1, 1, 0]], [0]])
    plain, spec = read_lidar(MIT_LIDAR), read_lidar(config)
    assert attrgetter(field)(spec) == read
    part, name = field.split(".")
    others = {key: v for key, v in vars(getattr(spec, part)).items() if key != name}
    assert others == {key: v for key, v in vars(getattr(plain, part)).items() if key != name}
    batch = voxel_batch([torch.rand(300, 5) * 10 - 5], spec.grid)
    detector = build_detector(spec).eval()
    with torch.inference_mode():
        detector.head.predict(detector(batch))


def test_levels_with_numbers_of_their_own():
    """Three blocks, other strides, widths that differ: what the neck makes is what the head reads, on a finer map."""
    config = changed(MIT_LIDAR, SECOND, MIT_LIDAR["model"]["decoder"]["backbone"] | {
        "out_channels": [8, 12, 6], "layer_nums": [1, 0, 2], "layer_strides": [1, 1, 2],
    })  # fmt: skip
    config = changed(config, FPN, MIT_LIDAR["model"]["decoder"]["neck"] | {
        "in_channels": [8, 12, 6], "out_channels": [4, 5, 7], "upsample_strides": [2, 2, 4],
    })  # fmt: skip
    for place, value in {f"{HEAD}.test_cfg.out_size_factor": 4, f"{HEAD}.bbox_coder.out_size_factor": 4}.items():
        config = changed(config, place, value)
    spec = read_lidar(config)
    assert spec.head.cell_size == pytest.approx((0.8, 0.8))
    detector = build_detector(spec).eval()
    with torch.inference_mode():
        assert detector(voxel_batch([torch.rand(300, 5) * 10 - 5], spec.grid)).heatmap.shape == (1, 10, 20, 16)


@pytest.mark.parametrize(("config", "layout"), [(MIT_LIDAR, MIT), (MM_LIDAR, MMDET3D)], ids=["MIT", "mmdetection3d"])
def test_a_file_of_the_config_fills_the_network(config, layout):
    torch.manual_seed(0)
    one, other = (build_detector(read_lidar(config), layout.convention) for _ in range(2))
    load_detector(other, {layout.to_file(name): tensor for name, tensor in one.state_dict().items()})
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())
    assert other.head.convention is layout.convention


def test_of_cameras_and_lidar_the_encoder_is_read():
    plain = read_lidar(MIT_LIDAR)
    mit = changed(MIT_LIDAR, "model.encoders.camera", {"backbone": {"type": "SwinTransformer"}})
    mit = changed(mit, "model.fuser", {"type": "ConvFuser"})
    mm = changed(MM_LIDAR, "model.fusion_layer", {"type": "ConvFuser"})
    for spec in (read_lidar(mit), read_lidar(mm)):
        assert (spec.grid, spec.encoder, spec.bev_backbone, spec.head) == (plain.grid, plain.encoder, None, None)
    assert read_lidar(GEOMIM).head is None


@pytest.mark.parametrize(
    ("config", "place", "value", "sentence"),
    [
        (MIT_LIDAR, "model.type", "CenterPoint", r"model\.type is 'CenterPoint'"),
        (MIT_LIDAR, "object_classes", ["car"], "object_classes is .* only the order"),
        (MIT_LIDAR, "model.heads.map", {"type": "X"}, r"model\.heads\.map is .* only None"),
        (MIT_LIDAR, "object_classes", 3, "object_classes must be a list, not 3"),
        (MIT_LIDAR, f"{HEAD}.num_classes", 9, "num_classes is 9: only 10"),
        (MIT_LIDAR, f"{ENCODER}.in_channels", 4, r"backbone\.in_channels is 4: only 5 numbers a point"),
        (MIT_LIDAR, f"{HEAD}.dropout", 3, "dropout is 3: a share lies between 0 and 1"),
        (MIT_LIDAR, f"{HEAD}.num_heads", 0, r"num_heads must be a whole number of at least 1, not 0"),
        (MIT_LIDAR, f"{HEAD}.num_proposals", 100_000, r"num_proposals is 100000, more than the map's 800 places"),
        (MIT_LIDAR, f"{HEAD}.hidden_channel", -16, "hidden_channel must be a whole number of at least 1, not -16"),
        (MIT_LIDAR, f"{HEAD}.bbox_coder.pc_range", [-8.0], r"pc_range must have x and y, not \[-8\.0\]"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.voxel_size", [0, 0], "voxel_size must be numbers of at least 0.001, not 0"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.grid_size", [80], "grid_size must have 3 values"),
        (MIT_LIDAR, "model.encoders.lidar.voxelize.voxel_size", [0, 0, 0], "voxel_size must be numbers of at least 0"),
        (MIT_LIDAR, "model.encoders.lidar.voxelize.point_cloud_range", RANGE[::-1], "must ascend in x, y and z"),
        (MIT_LIDAR, "model.encoders.lidar.voxelize.max_voxels", float("nan"), "must be a whole number, not nan"),
        (MIT_LIDAR, f"{ENCODER}.encoder_paddings.0.2", 1.5, r"encoder_paddings\[0\]\.last must be whole numbers"),
        (MIT_LIDAR, f"{ENCODER}.encoder_paddings.2.2", [1, 1], r"encoder_paddings\[2\]\.last must have 3 values"),
        (MIT_LIDAR, f"{ENCODER}.encoder_channels.0", [], "encoder_channels must have a list of numbers for each level"),
        (MIT_LIDAR, f"{ENCODER}.encoder_channels.0", [4, 4, "6"], r"encoder_channels\[0\]\.last must be a whole"),
        (MIT_LIDAR, f"{ENCODER}.encoder_channels.0", 3, "encoder_channels must have a list of numbers for each level"),
        (MIT_LIDAR, f"{ENCODER}.block_type", None, r"block_type is 'conv_module': only 'basicblock'"),
        (MIT_LIDAR, f"{ENCODER}.type", "SparseUNet", r"backbone\.type is 'SparseUNet': only 'SparseEncoder'"),
        (MM_LIDAR, "model.pts_middle_encoder.type", "SparseEncoder", "only 'BEVFusionSparseEncoder'"),
        (MIT_LIDAR, f"{ENCODER}.sparse_shape", [80, 64, 41], "sparse_shape is .* one is wrong"),
        (MIT_LIDAR, f"{ENCODER}.encoder_channels.1", [6, 8, 8], r"encoder_channels\[1\] .* residual blocks keep the 6"),
        (MIT_LIDAR, f"{ENCODER}.encoder_channels", [[4, 4]], "must list four levels"),
        (MIT_LIDAR, f"{ENCODER}.dropout", 0.1, r"nothing here knows what .*backbone\.dropout means"),
        (MIT_LIDAR, f"{SECOND}.in_channels", 16, r"decoder\.backbone\.in_channels is 16, but 8 come in"),
        (MIT_LIDAR, f"{SECOND}.norm_cfg", {"type": "GN"}, r"norm_cfg\.type is 'GN': only batch normalisation"),
        (MIT_LIDAR, f"{SECOND}.conv_cfg.type", "DCN", r"conv_cfg is .* only"),
        (MIT_LIDAR, f"{FPN}.in_channels", [8, 8], r"neck\.in_channels is \[8, 8\], but .* is \[8, 12\]"),
        (MIT_LIDAR, f"{FPN}.upsample_strides", [1, 4], "branches of unequal sizes"),
        (MIT_LIDAR, f"{FPN}.out_channels", [6, 6], r"object\.in_channels is 16, but 12 come in"),
        (MIT_LIDAR, f"{HEAD}.num_heads", 3, "width of 16 is no multiple of its 3 attention heads"),
        (MIT_LIDAR, f"{HEAD}.activation", "gelu", "activation is 'gelu': only 'relu'"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.nms_type", "circle", "nms_type is 'circle': only None"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.dataset", "Waymo", "dataset is 'Waymo': only 'nuScenes'"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.out_size_factor", 4, "out_size_factor is 8, but .* is 4"),
        (MIT_LIDAR, f"{HEAD}.test_cfg.grid_size", [160, 64, 33], r"says a map of \[20, 8\] cells"),
        (MIT_LIDAR, f"{HEAD}.bbox_coder.pc_range", [-9, -6.4], r"pc_range is \[-9, -6\.4\], but .* one is wrong"),
        (MIT_LIDAR, f"{HEAD}.bbox_coder.code_size", 8, "code_size is 8: only 10"),
        (MIT_LIDAR, f"{HEAD}.common_heads.vel", None, r"common_heads\.vel is missing"),
        (MIT_LIDAR, f"{HEAD}.fuse_img", True, r"nothing here knows what model\.heads\.object\.fuse_img means"),
        (MIT_LIDAR, "model.encoders.lidar.voxelize.voxel_size", "${voxel_size}", "is a reference"),
        (MM_LIDAR, "model.bbox_head.decoder_layer.cross_attn_cfg.num_heads", 4, "unequal heads"),
        (MM_LIDAR, "model.bbox_head.decoder_layer.ffn_cfg.act_cfg.type", "GELU", "act_cfg is"),
        (MM_LIDAR, "model.data_preprocessor.voxelize_cfg.voxelize_reduce", False, "voxelize_reduce is False"),
        (MM_LIDAR, "model.pts_voxel_encoder.num_features", 4, "makes 4 features"),
        (MM_LIDAR, "model.pts_roi_head", {}, r"nothing here knows what model\.pts_roi_head means"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_name(config, place, value, sentence):
    with pytest.raises(UnreadableConfig, match=sentence) as error:
        read_lidar(changed(config, place, value))
    assert "\n" not in str(error.value)
