"""The BEVDet family's configs: every field is read, or refused by name."""

from operator import attrgetter

import pytest
import torch

from models.bevdet.encoder import ResidualSpec
from models.bevdet.layout import bevdet_to_public, fill_bevdet, read_bevdet
from models.bevdet.necks import FpnSpec
from models.nms import CircleNms, RotatedNms
from models.norm import Norm
from models.public.bevdet import read_bevdet as read_config
from models.public.used import UnreadableConfig
from public_configs import BEVDET4D, CLASSES, changed
from small_detectors import rig

HEAD, TRAIN, TEST = "model.pts_bbox_head", "model.train_cfg.pts", "model.test_cfg.pts"
NECK = BEVDET4D["model"]["img_bev_encoder_neck"]
TASKS = BEVDET4D["model"]["pts_bbox_head"]["tasks"]
VIEW, STEREO_NET = "model.img_view_transformer", {"use_dcn": False, "aspp_mid_channels": 4, "stereo": True, "bias": 5.0}


def stereo() -> dict:
    """BEVStereo4D."""
    config = changed(BEVDET4D, "model.type", "BEVStereo4D")
    config = changed(config, f"{VIEW}.type", "LSSViewTransformerBEVStereo")
    return changed(changed(config, f"{VIEW}.depthnet_cfg", STEREO_NET), f"{VIEW}.sid", True)


def single() -> dict:
    """BEVDet of one frame."""
    config = BEVDET4D
    for place in ("num_adj", "align_after_view_transfromation", "pre_process"):
        config = changed(config, f"model.{place}")
    config = changed(config, "model.type", "BEVDet")
    return changed(config, "model.img_bev_encoder_backbone.numC_input", 4)


def changed_all(config: dict, values: dict) -> dict:
    for place, value in values.items():
        config = changed(config, place, value)
    return config


@pytest.mark.parametrize("config", [BEVDET4D, stereo(), single()], ids=["BEVDet4D", "BEVStereo4D", "BEVDet"])
def test_a_file_of_the_config_fills_the_detector(config):
    public = read_config(config)
    torch.manual_seed(0)
    one, other = public.build().eval(), public.build().eval()
    filled = fill_bevdet(other, read_bevdet(bevdet_to_public(one.state_dict())))
    assert (filled.left, filled.ignored) == ([], [])
    with torch.no_grad():
        images, cameras = torch.randn(1, one.input_frames, 2, 3, 64, 96), one.geometry(rig(1, one.input_frames, 2))
        (bev, _), (again, _) = one(images, cameras), other(images, cameras)
        assert torch.equal(bev, again)
        assert len(one.head(bev)) == 2


def test_what_stands_where():
    public = read_config(stereo())
    spec, head = public.detector, public.head
    assert (spec.frames, spec.stereo, spec.stereo_bias, spec.camera_aware, spec.aspp_width) == (2, True, 5.0, True, 4)
    assert (spec.depth_bins.spacing, public.depth_weight) == ("log", 3.0)
    assert (spec.truncate_cells, spec.align_at_corners, spec.align_after_splat) == (True, True, False)
    assert head.rules == (RotatedNms({"car": 0.7}, 0.2, 1000, 83), CircleNms(tuple(CLASSES[1:]), 12**0.5, 83))
    assert (head.slots, head.max_boxes, head.keep_range) == (50, 30, (-10, -10, -10, 10, 10, 10))
    assert public.images.size == (64, 96)
    assert read_config(changed(BEVDET4D, "data_config")).images is None


@pytest.mark.parametrize(
    ("values", "field", "read"),
    [
        ({"model.img_backbone.mlp_ratio": 2}, "backbone.mlp_ratio", 2),
        ({"model.img_backbone.window_size": [8, 4, 4, 4]}, "backbone.window_sizes", (8, 4, 4, 4)),
        ({"model.img_backbone.pretrain_img_size": 64}, "backbone.pretrain_grid", 16),
        (
            {"model.img_neck.extra_upsample": 2, f"{VIEW}.downsample": 8},
            "detector.image_neck",
            FpnSpec(8, (0, 1), 2, 2),
        ),
        (
            {
                "model.img_bev_encoder_backbone.num_layer": [1, 2, 3],
                "model.img_bev_encoder_backbone.stride": [1, 2, 2],
                "model.img_bev_encoder_neck": NECK | {"extra_upsample": None},
            },
            "detector.bev_encoder",
            ResidualSpec((8, 8, 8), (1, 2, 3), (1, 2, 2)),
        ),
        (
            {
                "model.img_bev_encoder_neck.input_feature_index": [0, 1],
                "model.img_bev_encoder_neck.scale_factor": 2,
            },
            "detector.bev_neck",
            FpnSpec(8, (0, 1), 2, 2),
        ),
        ({"model.pre_process.num_layer": [3]}, "detector.pre_blocks", 3),
        (
            {"model.num_adj": 2, "multi_adj_frame_id_cfg": [1, 3, 1],
             "model.img_bev_encoder_backbone.numC_input": 12},
            "detector.frames",
            3,
        ),
        ({"model.align_after_view_transfromation": True}, "detector.align_after_splat", True),
        ({f"{HEAD}.separate_head.head_conv": 5}, "head.branch_width", 5),
        ({f"{HEAD}.separate_head.final_kernel": 1}, "head.branch_kernel", 1),
        ({f"{HEAD}.common_heads.dim": [3, 3]}, "head.branch_depths", (2, 2, 3, 2, 2, 2)),
        ({f"{HEAD}.num_heatmap_convs": 3}, "head.branch_depths", (2, 2, 2, 2, 2, 3)),
        (
            {f"{part}.norm_cfg": {"type": "BN2d", "eps": 1e-3} for part in (HEAD, f"{HEAD}.separate_head")},
            "head.norm",
            Norm(1e-3, 0.1),
        ),
        ({f"{TRAIN}.code_weights": [2.0] * 3 + [0.5] * 7}, "head.code_weights", (2.0,) * 3 + (0.5,) * 7),
        ({f"{HEAD}.loss_bbox.loss_weight": 0.5}, "head.box_weight", 0.5),
        ({f"{HEAD}.loss_cls.loss_weight": 2.0}, "head.heatmap_weight", 2.0),
        ({f"{HEAD}.bbox_coder.post_center_range": [-3, -4, -1, 5, 6, 2]}, "head.keep_range", (-3, -4, -1, 5, 6, 2)),
        ({f"{HEAD}.bbox_coder.max_num": 9}, "head.max_boxes", 9),
        ({f"{TRAIN}.max_objs": 9, f"{TRAIN}.dense_reg": 2}, "head.slots", 18),
        ({f"{HEAD}.bbox_coder.score_threshold": 0.3}, "head.score_threshold", 0.3),
        (
            {f"{TEST}.post_max_size": 7, f"{TEST}.pre_max_size": 9, f"{TEST}.nms_thr": [0.1, 0.4]},
            "head.rules",
            (RotatedNms({"car": 0.7}, 0.1, 9, 7), CircleNms(tuple(CLASSES[1:]), 12**0.5, 7)),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_of_the_file_is_one_of_the_detector(values, field, read):
    """What a config says and no tensor's shape shows, with the rest as it was; and the detector can be built."""
    plain, public = read_config(BEVDET4D), read_config(changed_all(BEVDET4D, values))
    assert attrgetter(field)(public) == read != attrgetter(field)(plain)
    part, _ = field.split(".")
    for other in {"backbone", "detector", "head"} - {part}:
        assert getattr(public, other) == getattr(plain, other)
    net = public.build().eval()
    with torch.no_grad():
        cameras = net.geometry(rig(1, net.input_frames, 1))
        bev, _ = net(torch.randn(1, net.input_frames, 1, 3, 64, 96), cameras)
        assert bev.shape == (1, 8, 16, 16)
        net.head.predict(net.head(bev))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("class_names", CLASSES[::-1], "class_names is .* only the order"),
        ("multi_adj_frame_id_cfg", [2, 3, 1], r"multi_adj_frame_id_cfg is \[2, 3, 1\]: only \[1, 2, 1\]"),
        ("multi_adj_frame_id_cfg", [3, 4, 1], r"multi_adj_frame_id_cfg is \[3, 4, 1\]: only"),
        ("multi_adj_frame_id_cfg", [1, 3, 1], r"multi_adj_frame_id_cfg is \[1, 3, 1\]: only"),
        ("multi_adj_frame_id_cfg", [1, 2, 0], r"multi_adj_frame_id_cfg is \[1, 2, 0\]: only"),
        ("multi_adj_frame_id_cfg", [1], r"multi_adj_frame_id_cfg is \[1\]: only"),
        ("multi_adj_frame_id_cfg", 1, "multi_adj_frame_id_cfg must be a list"),
        ("model.type", "BEVStereo4DOCC", r"model\.type is 'BEVStereo4DOCC': only BEVDet, BEVDet4D"),
        ("model.type", ["BEVDet"], r"model\.type is \['BEVDet'\]: only BEVDet"),
        ("model.type", "BEVStereo4D", r"model\.type is 'BEVStereo4D', but img_view_transformer's stereo is False"),
        ("model.img_backbone.type", "ResNet", "type is 'ResNet': only 'SwinTransformerBEVFT'"),
        ("model.img_backbone.patch_size", 8, r"patch_size is 8: only 4"),
        ("model.img_backbone.out_indices", None, r"out_indices is \[1, 2, 3\]: only \[2, 3\]"),
        ("model.img_backbone.use_abs_pos_embed", False, "use_abs_pos_embed is False"),
        ("model.img_backbone.window_size", 7, r"window_size must be a list, not 7"),
        ("model.img_backbone.depths", [1, 1, 1], "depths must have 4 values"),
        ("model.img_backbone.norm_cfg", {"type": "LN", "eps": 1e-6}, "norm_cfg is"),
        ("model.img_neck.in_channels", 64, r"img_neck\.in_channels is 64, but the sum .* is 96"),
        ("model.img_neck.use_input_conv", True, "use_input_conv is True"),
        ("model.img_neck.lateral", 3, "lateral is 3: only None"),
        ("model.img_neck.norm_cfg", {"type": "BN", "eps": 1e-3}, r"norm_cfg is Norm\(eps=0\.001"),
        ("model.img_neck.out_channels", 16, r"img_neck\.out_channels is 16, but .*in_channels is 8"),
        ("model.img_neck.extra_upsample", 2, "downsample is 16, but features have stride 8"),
        ("model.img_bev_encoder_neck.extra_upsample", 1, "extra_upsample is 1: only null"),
        ("class_names", 3, "class_names must be a list, not 3"),
        (
            f"{VIEW}.grid_config.z",
            [-5, 3, 0],
            r"grid_config\.z must be low < high and a step between, not \[-5, 3, 0\]",
        ),
        (f"{VIEW}.grid_config.x", [8, -8, 1], r"grid_config\.x must be low < high"),
        (f"{VIEW}.grid_config.depth", [1.0, 9.0, 0], r"grid_config\.depth must be low < high and a step"),
        (f"{VIEW}.grid_config.depth", [-1.0, 9.0, 1.0], "depth has no two depth bins before the camera"),
        (f"{VIEW}.grid_config.depth", [1.0, 9.0, 8.0], "depth has no two depth bins before the camera"),
        ("model.img_bev_encoder_backbone.num_layer", [2, -1, 2], "num_layer must be whole numbers of at least 1"),
        ("model.img_backbone.num_heads", [1, 0, 2, 2], "num_heads must be whole numbers of at least 1, not 0"),
        ("model.img_backbone.embed_dims", 1e400, "embed_dims must be a whole number, not inf"),
        ("model.img_backbone.mlp_ratio", float("nan"), "mlp_ratio must be a number that can be meant, not nan"),
        (f"{TRAIN}.voxel_size", [0, 0, 0], r"pts\.voxel_size must be numbers of at least 0\.001, not 0"),
        (f"{TEST}.min_radius", [4, "x"], r"min_radius\.1 must be a number, not 'x'"),
        (f"{TEST}.min_radius", [4, -1], r"min_radius\.1 must be a number of at least 0, not -1"),
        (f"{TEST}.nms_thr", [[0.1], 0.2], r"nms_thr\.0 must be a number, not \[0\.1\]"),
        (f"{TEST}.nms_rescale_factor", ["x", 1.0], r"nms_rescale_factor\.0 must be numbers, not 'x'"),
        (f"{VIEW}.grid_config.y", [-8, 8, 0.5], "only square ones"),
        (f"{VIEW}.grid_config.z", [-5, 3, 4], "2 height bins: only one"),
        (f"{VIEW}.grid_config.x", [-16, 16, 1.0], "and pts_bbox_head from .* they must agree"),
        (f"{VIEW}.collapse_z", False, "collapse_z is False"),
        (f"{VIEW}.depthnet_cfg", {"use_dcn": False}, r"nothing here knows what .*depthnet_cfg means"),
        (f"{VIEW}.input_size", [64, 128], r"data_config\.input_size is \(64, 96\), but the view's is \(64, 128\)"),
        ("model.img_bev_encoder_backbone.block_type", "BottleNeck", "only 'Basic'"),
        ("model.img_bev_encoder_backbone.backbone_output_ids", [0, 2], "backbone_output_ids is"),
        ("model.img_bev_encoder_backbone.numC_input", 4, "numC_input is 4, but what comes in is 8"),
        ("model.img_bev_encoder_backbone.stride", [2, 2], "one number a stage"),
        ("model.img_bev_encoder_neck.scale_factor", 2, "does not fit stages"),
        ("model.img_bev_encoder_neck.input_feature_index", [0, 3], "there are 3 maps"),
        ("model.pre_process", None, "without it only one frame"),
        ("model.pre_process.stride", [2], "only one stage of 4 channels, stride 1"),
        ("model.with_prev", False, "with_prev is False"),
        ("model.pts_dir_head", {}, r"nothing here knows what model\.pts_dir_head means"),
        (f"{HEAD}.separate_head.type", "DCNSeparateHead", "only 'SeparateHead'"),
        (f"{HEAD}.separate_head.norm_cfg", {"type": "BN2d", "eps": 1e-3}, "one norm is implemented"),
        (f"{HEAD}.norm_bbox", False, "norm_bbox is False"),
        (f"{HEAD}.task_specific", False, "task_specific is False"),
        (
            f"{HEAD}.tasks.0",
            {"num_class": 1, "class_names": ["tram"]},
            "tasks has the class names .*'tram'.* must be .*'car', 'truck'",
        ),
        (f"{HEAD}.tasks", TASKS[::-1], r"tasks has the class names .* one after the other they must be \['car', 'tr"),
        (f"{HEAD}.tasks", TASKS[:1], r"tasks has the class names \[\['car'\]\]: one after"),
        (f"{HEAD}.tasks.1.class_names", [CLASSES[2], CLASSES[1], *CLASSES[3:]], "tasks has the class names"),
        (f"{HEAD}.tasks.0", {"num_class": 2, "class_names": ["car"]}, r"num_class is 2, but the number .* is 1"),
        (f"{HEAD}.common_heads.vel", None, r"common_heads\.vel is missing"),
        (f"{HEAD}.bbox_coder.code_size", 7, "code_size is 7"),
        (f"{HEAD}.bbox_coder.out_size_factor", 8, "out_size_factor is 8, but .* is 4"),
        (f"{HEAD}.bbox_coder.voxel_size", [0.5, 0.5], r"voxel_size is \[0\.5, 0\.5\], but"),
        (f"{HEAD}.loss_cls.type", "FocalLoss", "only 'GaussianFocalLoss'"),
        (f"{HEAD}.loss_cls.gamma", 2.0, "gamma is 2.0"),
        (f"{TRAIN}.grid_size", [128, 64, 40], "grid_size is not the"),
        (f"{TRAIN}.code_weights", [1.0] * 8, "code_weights must have 10 values"),
        (f"{TEST}.nms_type", ["rotate", "soft"], "nms_type is 'soft'"),
        (f"{TEST}.nms_type", ["rotate"], "no entry for each of 2 groups"),
        (f"{TEST}.nms_thr", None, "nms_thr is missing"),
        (f"{TEST}.nms_rescale_factor", [[0.7, 0.8], 1.0], "no factor for each of car"),
        (f"{TEST}.max_pool_nms", True, "max_pool_nms is True"),
        (f"{TEST}.nms_across_tasks", True, "nothing here knows what"),
        ("data_config.crop_h", [0.1], r"data_config\.crop_h must have 2 values"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(place, value, sentence):
    with pytest.raises(UnreadableConfig, match=sentence) as error:
        read_config(changed(BEVDET4D, place, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (STEREO_NET | {"use_dcn": True}, "use_dcn is True"),
        ({"aspp_mid_channels": 4, "stereo": True}, "use_dcn is True"),  # the public code's default
        (STEREO_NET | {"use_aspp": False}, "use_aspp is False"),
        (STEREO_NET | {"depth_bins": 3}, "nothing here knows what"),
    ],
)
def test_a_depth_net_that_is_not_implemented_is_refused(net, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read_config(changed(stereo(), f"{VIEW}.depthnet_cfg", net))


def test_sids_bins_end_a_metre_before():
    config = changed(stereo(), f"{VIEW}.grid_config.depth", [1.0, 2.0, 0.5])
    with pytest.raises(UnreadableConfig, match="depth has no two depth bins before the camera"):
        read_config(config)


@pytest.mark.parametrize(("kind", "rule"), [("rotate", RotatedNms), ("circle", CircleNms)])
def test_one_rule_for_all_groups_leaves_the_others_numbers(kind, rule):
    """As in the released files: there are radii though no group is suppressed by them."""
    rules = read_config(changed(BEVDET4D, f"{TEST}.nms_type", [kind, kind])).head.rules
    assert all(isinstance(one, rule) for one in rules)
