"""Small configs in the form of the public codes', and how to change them."""

import json
from typing import Any

CLASSES = [
    "car", "truck", "construction_vehicle", "bus", "trailer",
    "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
]  # fmt: skip
RANGE, VOXEL = [-8.0, -6.4, -4.0, 8.0, 6.4, 4.0], [0.2, 0.2, 0.25]  # a map of 10x8 cells of 1.6 m
CAMS = ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"]
SECOND_NORM = {"type": "BN", "eps": 0.001, "momentum": 0.01}


def changed(config: dict[str, Any], place: str, value: Any = None) -> dict[str, Any]:
    """A copy with another value at `a.b.c`; without a value the key is gone."""
    config = json.loads(json.dumps(config))  # whose sections are shared with each other no longer
    *way, last = (int(key) if key.isdigit() else key for key in place.split("."))
    section = config
    for key in way:
        section = section[key]
    if value is None:
        del section[last]
    else:
        section[last] = value
    return config


_ENCODER = {
    "in_channels": 5,
    "sparse_shape": [80, 64, 33],
    "order": ["conv", "norm", "act"],
    "output_channels": 8,
    "base_channels": 4,
    "encoder_channels": [[4, 4, 6], [6, 6, 8], [8, 8, 8], [8, 8]],
    "encoder_paddings": [[0, 0, 1], [0, 0, 1], [0, 0, [1, 1, 0]], [0, 0]],
    "block_type": "basicblock",
}
_VOXELS = {
    "max_num_points": 10,
    "point_cloud_range": RANGE,
    "voxel_size": VOXEL,
    "max_voxels": [12000, 16000],
}
_SECOND = {
    "type": "SECOND",
    "in_channels": 8,
    "out_channels": [8, 12],
    "layer_nums": [1, 2],
    "layer_strides": [1, 2],
    "norm_cfg": SECOND_NORM,
    "conv_cfg": {"type": "Conv2d", "bias": False},
}
_FPN = {
    "type": "SECONDFPN",
    "in_channels": [8, 12],
    "out_channels": [6, 10],
    "upsample_strides": [1, 2],
    "norm_cfg": SECOND_NORM,
    "upsample_cfg": {"type": "deconv", "bias": False},
    "use_conv_for_no_stride": True,
}
_TRANSFUSION = {
    "type": "TransFusionHead",
    "num_proposals": 20,
    "auxiliary": True,
    "in_channels": 16,
    "hidden_channel": 16,
    "num_classes": 10,
    "num_decoder_layers": 1,
    "nms_kernel_size": 3,
    "bn_momentum": 0.1,
    "train_cfg": {"dataset": "nuScenes", "gaussian_overlap": 0.1},
    "test_cfg": {
        "dataset": "nuScenes",
        "grid_size": [80, 64, 33],
        "out_size_factor": 8,
        "voxel_size": VOXEL[:2],
        "pc_range": RANGE[:2],
        "nms_type": None,
    },
    "common_heads": {"center": [2, 2], "height": [1, 2], "dim": [3, 2], "rot": [2, 2], "vel": [2, 2]},
    "bbox_coder": {
        "type": "TransFusionBBoxCoder",
        "pc_range": RANGE[:2],
        "post_center_range": [-10, -9, -5, 10, 9, 5],
        "score_threshold": 0.0,
        "out_size_factor": 8,
        "voxel_size": VOXEL[:2],
        "code_size": 10,
    },
    "loss_cls": {"type": "FocalLoss"},
    "loss_heatmap": {"type": "GaussianFocalLoss"},
    "loss_bbox": {"type": "L1Loss", "loss_weight": 0.25},
}
_STEPS = [
    {"type": "LoadPointsFromFile", "coord_type": "LIDAR", "load_dim": 5, "use_dim": 5, "reduce_beams": 32},
    {
        "type": "LoadPointsFromMultiSweeps",
        "sweeps_num": 9,
        "load_dim": 5,
        "use_dim": [0, 1, 2, 3, 4],
        "pad_empty_sweeps": True,
        "remove_close": True,
    },
    {"type": "PointsRangeFilter", "point_cloud_range": RANGE},
]
_ATTENTION = {"embed_dims": 16, "num_heads": 2, "dropout": 0.1}

MIT_LIDAR = {
    "object_classes": CLASSES,
    "model": {
        "type": "BEVFusion",
        "encoders": {"camera": None, "lidar": {"voxelize": _VOXELS, "backbone": {"type": "SparseEncoder"} | _ENCODER}},
        "fuser": None,
        "decoder": {"backbone": _SECOND, "neck": _FPN},
        "heads": {
            "map": None,
            "object": _TRANSFUSION | {"num_heads": 2, "ffn_channel": 24, "dropout": 0.1, "activation": "relu"},
        },
    },
    "test_pipeline": _STEPS,
    "optimizer": {"type": "AdamW"},
}

MM_LIDAR = {
    "class_names": CLASSES,
    "model": {
        "type": "BEVFusion",
        "data_preprocessor": {
            "type": "Det3DDataPreprocessor",
            "pad_size_divisor": 32,
            "voxelize_cfg": _VOXELS | {"voxelize_reduce": True},
        },
        "pts_voxel_encoder": {"type": "HardSimpleVFE", "num_features": 5},
        "pts_middle_encoder": {"type": "BEVFusionSparseEncoder"} | _ENCODER,
        "pts_backbone": _SECOND,
        "pts_neck": _FPN,
        "bbox_head": _TRANSFUSION
        | {
            "decoder_layer": {
                "type": "TransformerDecoderLayer",
                "self_attn_cfg": _ATTENTION,
                "cross_attn_cfg": _ATTENTION,
                "ffn_cfg": {
                    "embed_dims": 16,
                    "feedforward_channels": 24,
                    "num_fcs": 2,
                    "ffn_drop": 0.1,
                    "act_cfg": {"type": "ReLU", "inplace": True},
                },
                "norm_cfg": {"type": "LN"},
                "pos_encoding_cfg": {"input_channel": 2, "num_pos_feats": 16},
            }
        },
    },
    "test_pipeline": _STEPS,
    "optim_wrapper": {"type": "OptimWrapper"},
}

_SWIN = {
    "embed_dims": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": [4, 4, 4, 2],
    "pretrain_img_size": 32,
    "out_indices": [2, 3],
    "patch_norm": True,
    "drop_path_rate": 0.2,
}
_GRID = {"x": [-8, 8, 1.0], "y": [-8, 8, 1.0], "z": [-5, 3, 8], "depth": [1.0, 9.0, 1.0]}

BEVDET4D = {
    "class_names": CLASSES,
    "multi_adj_frame_id_cfg": [1, 2, 1],
    "data_config": {
        "cams": CAMS,
        "Ncams": 6,
        "input_size": [64, 96],
        "src_size": [900, 1600],
        "resize": [-0.06, 0.11],
        "rot": [-5.4, 5.4],
        "flip": True,
        "crop_h": [0.0, 0.0],
        "resize_test": 0.0,
    },
    "model": {
        "type": "BEVDet4D",
        "align_after_view_transfromation": False,
        "num_adj": 1,
        "img_backbone": {"type": "SwinTransformerBEVFT", "convert_weights": False} | _SWIN,
        "img_neck": {
            "type": "FPN_LSS",
            "in_channels": 96,
            "out_channels": 8,
            "extra_upsample": None,
            "input_feature_index": [0, 1],
            "scale_factor": 2,
        },
        "img_view_transformer": {
            "type": "LSSViewTransformer",
            "grid_config": _GRID,
            "input_size": [64, 96],
            "in_channels": 8,
            "out_channels": 4,
            "downsample": 16,
        },
        "img_bev_encoder_backbone": {"type": "CustomResNet", "numC_input": 8, "num_channels": [8, 8, 8]},
        "img_bev_encoder_neck": {"type": "FPN_LSS", "in_channels": 16, "out_channels": 8},
        "pre_process": {
            "type": "CustomResNet",
            "numC_input": 4,
            "num_layer": [2],
            "num_channels": [4],
            "stride": [1],
            "backbone_output_ids": [0],
        },
        "pts_bbox_head": {
            "type": "CenterHead",
            "in_channels": 8,
            "tasks": [
                {"num_class": 1, "class_names": ["car"]},
                {"num_class": 9, "class_names": CLASSES[1:]},
            ],
            "common_heads": {"reg": [2, 2], "height": [1, 2], "dim": [3, 2], "rot": [2, 2], "vel": [2, 2]},
            "share_conv_channel": 4,
            "bbox_coder": {
                "type": "CenterPointBBoxCoder",
                "pc_range": [-8, -8],
                "post_center_range": [-10, -10, -10, 10, 10, 10],
                "max_num": 30,
                "score_threshold": 0.1,
                "out_size_factor": 4,
                "voxel_size": [0.25, 0.25],
                "code_size": 9,
            },
            "separate_head": {"type": "SeparateHead", "init_bias": -2.19, "final_kernel": 3},
            "loss_cls": {"type": "GaussianFocalLoss", "reduction": "mean"},
            "loss_bbox": {"type": "L1Loss", "reduction": "mean", "loss_weight": 0.25},
            "norm_bbox": True,
        },
        "train_cfg": {
            "pts": {
                "point_cloud_range": [-8, -8, -5, 8, 8, 3],
                "grid_size": [64, 64, 40],
                "voxel_size": [0.25, 0.25, 0.2],
                "out_size_factor": 4,
                "dense_reg": 1,
                "gaussian_overlap": 0.1,
                "max_objs": 50,
                "min_radius": 2,
                "code_weights": [1.0] * 10,
            }
        },
        "test_cfg": {
            "pts": {
                "pc_range": [-8, -8],
                "post_center_limit_range": [-10, -10, -10, 10, 10, 10],
                "max_per_img": 500,
                "max_pool_nms": False,
                "min_radius": [4, 12],
                "score_threshold": 0.1,
                "out_size_factor": 4,
                "voxel_size": [0.25, 0.25],
                "pre_max_size": 1000,
                "post_max_size": 83,
                "nms_type": ["rotate", "circle"],
                "nms_thr": 0.2,
                "nms_rescale_factor": [0.7, [1.0] * 9],
            }
        },
    },
    "lr_config": {"policy": "step"},
}

GEOMIM = {
    "object_classes": CLASSES,
    "model": {
        "type": "BEVFusionGeoMIM",
        "bev_feat_dim": 16,
        "encoders": {
            "camera": {
                "backbone": {"type": "SwinTransformerBEV"}
                | _SWIN
                | {"decoder_dim": 16, "decoder_num_heads": 4, "decoder_depth": 4},
                "vtransform": {
                    "type": "DepthLSSTransformGT",
                    "in_channels": 16,
                    "out_channels": 6,
                    "image_size": [64, 96],
                    "feature_size": [4, 6],
                    "xbound": [-8, 8, 0.8],
                    "ybound": [-6.4, 6.4, 0.8],
                    "zbound": [-10, 10, 20],
                    "dbound": [1.0, 9.0, 1.0],
                    "downsample": 2,
                    "stride": 16,
                    "ret_depth": True,
                },
            },
            "lidar": {"voxelize": _VOXELS, "backbone": {"type": "SparseEncoder"} | _ENCODER | {"output_channels": 16}},
        },
    },
    "test_pipeline": _STEPS,
}
