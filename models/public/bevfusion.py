"""BEVFusion's LiDAR detector as the two public codes configure it: MIT's (YAML) and mmdetection3d's (Python).

Of a whole config `model`, the points that `test_pipeline` loads, and the names of the classes are read; what else
stands at its top are the file's own variables, or says how to train. Settings of training inside `model` are in the
lists below, each with its reason: a teacher is read to be evaluated.
"""

import math
from collections.abc import Mapping
from typing import Any

from models.lidar.bev_backbone import BevBackboneSpec
from models.lidar.box_code import PARTS
from models.lidar.detector import LidarSpec
from models.lidar.encoder import EncoderSpec
from models.lidar.grid import VoxelGrid
from models.lidar.sparse_conv import Triple
from models.lidar.transfusion import TransFusionSpec
from models.names import CLASSES
from models.norm import LIKE_SECOND, Norm
from models.public.classes import check_classes
from models.public.norms import BEGINNING, read_norm
from models.public.used import SMALLEST, UnreadableConfig, Used

POINT = 5  # x, y, z, intensity and age: numbers that are loaded of a point
_TRAINING = {
    "train_cfg": "targets and costs of training",
    "loss_cls": "a loss",
    "loss_heatmap": "a loss",
    "loss_bbox": "a loss",
    "auxiliary": "whether every decoder layer has a loss; the last one's boxes count",
}
# Of mmdetection3d's detector of cameras and LiDAR, of which the sparse encoder alone is read.
_CAMERAS = dict.fromkeys(
    ("img_backbone", "img_neck", "view_transform", "fusion_layer", "pts_backbone", "pts_neck", "bbox_head"),
    "makes the cameras' map, or reads that of both",
)

# Of the step that loads earlier sweeps.
_SWEEPS = {
    "pad_empty_sweeps": "copies of the key sweep where there are no others, which change no voxel's mean",
    "test_mode": "whether the nearest sweeps are taken, or some at random",
}


def read_lidar(config: Mapping[str, Any]) -> LidarSpec:
    """The detector of a whole config, or the encoder alone where it is one of cameras and LiDAR, or a GeoMIM.

    Raises UnreadableConfig.
    """
    check_classes(config)
    with Used(config.get("model", config), "model") as model:
        return _of_mmdet3d(model) if "pts_middle_encoder" in model else _of_mit(model)


def read_sweeps(config: Mapping[str, Any]) -> int | None:
    """How many previous sweeps the model sees when it is tested; None where there is no `test_pipeline`.

    Raises UnreadableConfig where that loads other points than ours.
    """
    if "test_pipeline" not in config:
        return None
    sweeps = 0
    for step in Used(config, "").sections("test_pipeline"):
        kind = step.value("type")
        if kind == "LoadPointsFromFile":
            with step:
                _check_points(step, load_dim=6, use_dim=[0, 1, 2])
                step.fixed("coord_type", "LIDAR")
                for key in ("shift_height", "use_color", "norm_intensity", "norm_elongation"):
                    step.fixed(key, False)
        elif kind == "LoadPointsFromMultiSweeps":
            with step:
                _check_points(step, load_dim=5, use_dim=[0, 1, 2, 4])
                step.fixed("remove_close", True, default=False)
                step.ignore(_SWEEPS)
                sweeps = step.integer("sweeps_num", 10, least=0)
    return sweeps


def _check_points(step: Used, load_dim: int, use_dim: list[int]) -> None:
    """All numbers of a point, and all 32 beams; the arguments are the public code's defaults."""
    step.fixed("load_dim", POINT, default=load_dim)
    if step.value("use_dim", use_dim) != POINT:
        step.fixed("use_dim", [*range(POINT)], default=use_dim)
    if step.value("reduce_beams", None) is not None:
        step.fixed("reduce_beams", 32)
    step.fixed("load_augmented", None)
    step.ignore(dict.fromkeys(("backend_args", "file_client_args"), "where files lie"))


def _of_mmdet3d(model: Used) -> LidarSpec:
    model.fixed("type", "BEVFusion")
    model.ignore(BEGINNING | {"train_cfg": "training", "test_cfg": "the head has its own"})
    with model.section("data_preprocessor") as data:
        data.fixed("type", "Det3DDataPreprocessor")
        data.ignore(dict.fromkeys(("pad_size_divisor", "mean", "std", "bgr_to_rgb"), "of images"))
        grid = read_grid(data.section("voxelize_cfg"))
    with model.section("pts_voxel_encoder", {}) as means:
        means.fixed("type", "HardSimpleVFE")
        features = means.integer("num_features", 4)
    encoder = read_encoder(model.section("pts_middle_encoder"), grid, "BEVFusionSparseEncoder")
    if encoder.in_channels != features:
        raise UnreadableConfig(f"model.pts_voxel_encoder makes {features} features, of which the encoder reads others")
    if "fusion_layer" in model:
        model.ignore(_CAMERAS)
        return LidarSpec(grid, encoder)
    return _whole(grid, encoder, model.section("pts_backbone"), model.section("pts_neck"), model.section("bbox_head"))


def _of_mit(model: Used) -> LidarSpec:
    kind = model.value("type")
    if kind not in ("BEVFusion", "BEVFusionGeoMIM"):
        raise UnreadableConfig(f"model.type is {kind!r}: only BEVFusion's LiDAR detectors are implemented here")
    with model.section("encoders") as encoders:
        cameras = encoders.value("camera", None) is not None
        encoders.fixed("radar", None)
        with encoders.section("lidar") as lidar:
            grid = read_grid(lidar.section("voxelize"))
            lidar.fixed("voxelize_reduce", True)
            encoder = read_encoder(lidar.section("backbone"), grid, "SparseEncoder")
    if cameras:
        later = ("fuser", "decoder", "heads", "loss_scale", "bev_feat_dim")
        model.ignore(dict.fromkeys(later, "reads the map of cameras and LiDAR, or imitates the LiDAR's"))
        return LidarSpec(grid, encoder)
    model.fixed("fuser", None)
    model.ignore({"loss_scale": "training"})
    with model.section("decoder") as decoder, model.section("heads") as heads:
        heads.fixed("map", None)
        return _whole(grid, encoder, decoder.section("backbone"), decoder.section("neck"), heads.section("object"))


def _whole(grid: VoxelGrid, encoder: EncoderSpec, backbone: Used, neck: Used, head: Used) -> LidarSpec:
    behind = read_bev_backbone(backbone, neck)
    channels, *cells = encoder.output_shape(grid.sparse_shape)
    if behind.in_channels != channels:
        raise UnreadableConfig(f"{backbone.at('in_channels')} is {behind.in_channels}, but {channels} come in")
    spec = read_transfusion(head, (grid.point_range[2], grid.point_range[5]))
    if spec.in_channels != behind.out_channels:
        raise UnreadableConfig(f"{head.at('in_channels')} is {spec.in_channels}, but {behind.out_channels} come in")
    wanted = [round((high - low) / cell) for low, high, cell in zip(spec.bev_range, spec.bev_range[3:], spec.cell_size)]
    if wanted != [side * behind.scale for side in cells] or _far(spec.bev_range[:2], grid.point_range[:2]):
        raise UnreadableConfig(
            f"{head.at('test_cfg')} says a map of {wanted} cells from {spec.bev_range[:2]} m on, but the neck makes "
            f"one of {[side * behind.scale for side in cells]} cells from {grid.point_range[:2]} m on"
        )
    try:
        return LidarSpec(grid, encoder, behind, spec)
    except ValueError as error:
        raise UnreadableConfig(f"model: {error}") from None


def read_grid(voxelize: Used) -> VoxelGrid:
    """Of two limits of voxels, training's and the test's, the test's counts."""
    with voxelize:
        voxelize.fixed("voxelize_reduce", True)
        voxelize.fixed("deterministic", True)
        both = isinstance(voxelize.value("max_voxels"), list | tuple)
        most = voxelize.integers("max_voxels", 2)[1] if both else voxelize.integer("max_voxels")
        limits = voxelize.numbers("point_cloud_range", 6)
        if any(low >= high for low, high in zip(limits[:3], limits[3:])):
            raise UnreadableConfig(f"{voxelize.at('point_cloud_range')} must ascend in x, y and z: {list(limits)}")
        return VoxelGrid(
            limits,
            voxelize.numbers("voxel_size", 3, least=SMALLEST),
            voxelize.integer("max_num_points"),
            most,
        )


def read_encoder(section: Used, grid: VoxelGrid, kind: str) -> EncoderSpec:
    """The sparse encoder; kind: its class, x first in both codes (mmdet3d's own SparseEncoder has z first)."""
    with section:
        section.fixed("type", kind)
        section.fixed("order", ("conv", "norm", "act"))
        section.fixed("block_type", "basicblock", default="conv_module")
        section.fixed("return_middle_feats", False)
        section.agrees("sparse_shape", grid.sparse_shape, "the grid with one layer more in height")
        if (numbers := section.integer("in_channels")) != POINT:
            raise UnreadableConfig(
                f"{section.at('in_channels')} is {numbers}: only {POINT} numbers a point are implemented here"
            )
        widths, blocks, paddings = _levels(section)
        try:
            spec = EncoderSpec(
                POINT,
                widths,
                blocks,
                paddings,
                section.integer("output_channels", 128),
                read_norm(section, LIKE_SECOND),
            )
            spec.output_shape(grid.sparse_shape)
        except ValueError as error:
            raise UnreadableConfig(f"{section.at('encoder_channels')}: {error}") from None
        return spec


def _levels(section: Used) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Triple, ...]]:
    """Widths and residual blocks of the four levels, and paddings of the strided convolutions that end three of them.

    The public code takes a block's channels as they are listed, so they must repeat what comes in.
    """
    widths, blocks = [], []
    strided: list[Triple] = []
    channels, paddings = _lists(section, "encoder_channels"), _lists(section, "encoder_paddings")
    width = section.integer("base_channels", 16)
    for number, (level, padding) in enumerate(zip(channels, paddings)):
        inner = level if number == 3 else level[:-1]
        if any(out != width for out in inner) or len(level) != len(padding):
            raise UnreadableConfig(
                f"{section.at('encoder_channels')}[{number}] is {level}: residual blocks keep the {width} "
                "channels that come in, and each entry needs one of encoder_paddings"
            )
        widths.append(width)
        blocks.append(len(inner))
        if number < 3:
            width = Used({"last": level[-1]}, f"{section.at('encoder_channels')}[{number}]").integer("last")
            last = padding[-1] if isinstance(padding[-1], list | tuple) else [padding[-1]] * 3
            place = Used({"last": last}, f"{section.at('encoder_paddings')}[{number}]")
            strided.append(place.integers("last", 3, least=0))
    return tuple(widths), tuple(blocks), tuple(strided)


def _lists(section: Used, key: str) -> list[list]:
    """Of each of the four levels a list that is not empty."""
    found = section.value(key)
    if not isinstance(found, list | tuple) or len(found) != 4:
        raise UnreadableConfig(f"{section.at('encoder_channels')} and encoder_paddings must list four levels")
    if not all(isinstance(level, list | tuple) and level for level in found):
        raise UnreadableConfig(f"{section.at(key)} must have a list of numbers for each level")
    return [list(level) for level in found]


def read_bev_backbone(backbone: Used, neck: Used) -> BevBackboneSpec:
    """SECOND and SECONDFPN."""
    with backbone, neck:
        for section, kind in ((backbone, "SECOND"), (neck, "SECONDFPN")):
            section.fixed("type", kind)
            section.fixed("conv_cfg", {"type": "Conv2d", "bias": False})
            section.ignore(BEGINNING)
        neck.fixed("upsample_cfg", {"type": "deconv", "bias": False})
        widths = backbone.integers("out_channels", default=(128, 128, 256))
        neck.agrees("in_channels", widths, backbone.at("out_channels"))
        try:
            return BevBackboneSpec(
                backbone.integer("in_channels", 128),
                widths,
                backbone.integers("layer_nums", default=(3, 5, 5), least=0),
                backbone.integers("layer_strides", default=(2, 2, 2)),
                neck.integers("out_channels", default=(256, 256, 256)),
                neck.numbers("upsample_strides", default=(1, 2, 4)),
                neck.flag("use_conv_for_no_stride", False),
                read_norm(backbone, LIKE_SECOND),
                read_norm(neck, LIKE_SECOND),
            )
        except ValueError as error:
            raise UnreadableConfig(f"{backbone.at('layer_nums')} and the neck: {error}") from None


def read_transfusion(head: Used, height: tuple[float, float]) -> TransFusionSpec:
    """The head; height: z minimum and maximum (m) of the map, which its config does not say and no box depends on."""
    with head:
        head.fixed("type", "TransFusionHead")
        head.ignore(_TRAINING)
        head.fixed("conv_cfg", {"type": "Conv1d"})
        head.fixed("norm_cfg", {"type": "BN1d"})
        head.fixed("bias", "auto")
        width = head.integer("hidden_channel", 128)
        heads, ffn_width, dropout = _decoder_layer(head, width)
        if not 0 <= dropout <= 1:
            raise UnreadableConfig(f"{head.at('dropout')} is {dropout}: a share lies between 0 and 1")
        with head.section("common_heads") as common:
            branches = [common.integers(part, 2) for part in PARTS]
        if any(channels != wanted for (channels, _), wanted in zip(branches, PARTS.values())):
            raise UnreadableConfig(f"{head.at('common_heads')} must give {PARTS} numbers a part")
        with head.section("test_cfg") as test:
            test.fixed("dataset", "nuScenes")
            test.fixed("nms_type", None)
            low, voxel = test.pair("pc_range"), test.pair("voxel_size", least=SMALLEST)
            factor, grid = test.integer("out_size_factor"), test.integers("grid_size", 3)[:2]
        with head.section("bbox_coder") as coder:
            coder.fixed("type", "TransFusionBBoxCoder")
            coder.fixed("code_size", 10)
            for key, wanted in (("pc_range", low), ("voxel_size", voxel)):
                if _far(coder.pair(key), wanted):
                    coder.agrees(key, wanted, f"{head.at('test_cfg')}.{key}")
            coder.agrees("out_size_factor", factor, f"{head.at('test_cfg')}.out_size_factor")
            keep_range = coder.numbers("post_center_range", 6)
            threshold = 0.0 if coder.value("score_threshold", None) is None else coder.number("score_threshold")
        high = [edge + side * size for edge, side, size in zip(low, grid, voxel)]
        head.fixed("num_classes", len(CLASSES))
        queries, places = head.integer("num_proposals", 128), len(CLASSES) * math.prod(n // factor for n in grid)
        if queries > places:
            raise UnreadableConfig(f"{head.at('num_proposals')} is {queries}, more than the map's {places} places")
        try:
            return TransFusionSpec(
                head.integer("in_channels"),
                (*low, height[0], *high, height[1]),
                (voxel[0] * factor, voxel[1] * factor),
                len(CLASSES),
                queries,
                width,
                heads,
                ffn_width,
                head.integer("num_decoder_layers", 3),
                dropout,
                branch_depths=(*(depth for _, depth in branches), head.integer("num_heatmap_convs", 2)),
                norm=Norm(momentum=head.number("bn_momentum", 0.1)),
                peak_size=head.integer("nms_kernel_size", 1),
                score_threshold=threshold,
                keep_range=keep_range,
            )
        except ValueError as error:
            raise UnreadableConfig(f"{head.at('hidden_channel')}: {error}") from None


def _decoder_layer(head: Used, width: int) -> tuple[int, int, float]:
    """Attention heads, width of the feed-forward network, dropout."""
    if "decoder_layer" not in head:  # MIT's
        head.fixed("activation", "relu")
        return head.integer("num_heads", 8), head.integer("ffn_channel", 256), head.number("dropout", 0.1)
    with head.section("decoder_layer") as layer:
        layer.fixed("type", "TransformerDecoderLayer")
        layer.fixed("norm_cfg", {"type": "LN"})
        layer.fixed("pos_encoding_cfg", {"input_channel": 2, "num_pos_feats": width})
        told = []
        for name in ("self_attn_cfg", "cross_attn_cfg"):
            with layer.section(name) as attention:
                attention.agrees("embed_dims", width, head.at("hidden_channel"))
                told.append((attention.integer("num_heads"), attention.number("dropout", 0.0)))
        with layer.section("ffn_cfg") as ffn:
            ffn.agrees("embed_dims", width, head.at("hidden_channel"))
            ffn.fixed("num_fcs", 2)
            ffn.fixed("act_cfg", {"type": "ReLU", "inplace": True})
            ffn_width, dropout = ffn.integer("feedforward_channels"), ffn.number("ffn_drop", 0.0)
        if {heads for heads, _ in told} != {told[0][0]} or {*(d for _, d in told), dropout} != {dropout}:
            raise UnreadableConfig(f"{head.at('decoder_layer')} has unequal heads or dropouts: {told}, {dropout}")
        return told[0][0], ffn_width, dropout


def _far(values: tuple[float, ...], wanted: tuple[float, ...]) -> bool:
    return any(abs(a - b) > 1e-6 for a, b in zip(values, wanted))
