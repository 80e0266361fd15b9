"""The networks of the configs, and the teacher with its weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from common.errors import UserError
from common.progress import say
from dataroot.points import load_points
from models.center_spec import ONE_GROUP, SIX_GROUPS, CenterHeadSpec
from models.layouts import WeightsMismatch, grouped
from models.lidar.bev_backbone import BEVBackbone, BevBackboneSpec
from models.lidar.checkpoint import convention_of, described, load_detector, load_encoder, why_encoder_alone
from models.lidar.detector import LidarDetector, LidarSpec, voxel_batch
from models.lidar.detector import build_detector as build
from models.lidar.encoder import EncoderSpec, SparseEncoder
from models.lidar.teacher import LidarTeacher, Teacher
from models.lidar.transfusion import TransFusionSpec
from models.names import CLASSES
from models.norm import LIKE_SECOND, Norm
from models.public.bevfusion import read_lidar, read_sweeps
from models.public.used import UnreadableConfig
from storage.index import Index
from tasks.checkpoints import read_metadata, read_tensors
from tasks.engine.config import explain
from tasks.meaning import first_difference, plain
from tasks.public_config import read_public_config
from tasks.teacher.config import ATTENTION_HEADS, FitConfig, LidarConfig, TeacherConfig

WEIGHTS = "detector.safetensors"
# In the metadata of weights that are fitted here: the config, and the whole network that it made. One entry, since
# safetensors writes several in any order, and equal trainings leave equal files.
FITTED = "geomim.fit"
SCORE_THRESHOLD = 0.05  # of the boxes that a fitted detector says


def encoder_spec(lidar: LidarConfig, norm: Norm = LIKE_SECOND) -> LidarSpec:
    """Grid and encoder of a config."""
    blocks = (lidar.blocks,) * len(lidar.widths)
    return LidarSpec(lidar.grid, EncoderSpec(widths=lidar.widths, blocks=blocks, out_width=lidar.out_width, norm=norm))


def detector_spec(config: FitConfig) -> LidarSpec:
    """The whole detector that a config fits."""
    lidar, norm = config.lidar, Norm(LIKE_SECOND.eps, config.norm_momentum)
    backbone = BevBackboneSpec(
        lidar.bev_channels,
        config.backbone_widths,
        config.backbone_layers,
        neck_widths=(config.neck_width,) * 2,
        upsamples=(config.upsample, 2 * config.upsample),
        norm=norm,
        neck_norm=norm,
    )
    x, y = (size / config.upsample for size in lidar.cell_size)
    common: dict[str, Any] = {
        "in_channels": backbone.out_channels,
        "bev_range": lidar.range,
        "cell_size": (x, y),
        "width": config.head_width,
        "score_threshold": SCORE_THRESHOLD,
        "min_radius": config.gaussian_radius,
    }
    head: TransFusionSpec | CenterHeadSpec
    if config.head == "transfusion":
        head = TransFusionSpec(**common, queries=config.queries, heads=ATTENTION_HEADS, ffn_width=2 * config.head_width)
    else:
        head = CenterHeadSpec(**common, class_groups=SIX_GROUPS if config.class_groups == "six" else ONE_GROUP)
    return replace(encoder_spec(lidar, norm), bev_backbone=backbone, head=head)


def fit_metadata(config: FitConfig) -> dict[str, str]:
    """Of a file of the fitted detector's weights."""
    return {FITTED: json.dumps({"config": config.key_fields(), "network": _network(config)})}


def _network(config: FitConfig) -> dict[str, Any]:
    """The whole network that a config makes, as JSON has it."""
    return {"classes": plain(CLASSES)} | plain(detector_spec(config))


def build_encoder(lidar: LidarConfig) -> SparseEncoder:
    """The encoder alone, with weights drawn from torch's global generator."""
    return SparseEncoder(lidar.grid.sparse_shape, encoder_spec(lidar).encoder)


def build_detector(config: FitConfig) -> LidarDetector:
    """The whole detector, with weights drawn from torch's global generator."""
    return build(detector_spec(config))


def build_teacher(config: TeacherConfig, index: Index, dataroot: Path, fitted: Path | None) -> Teacher:
    """The teacher with its weights, on the CPU. fitted: the file of `weights: fit`.

    Raises UserError for a file that is not what the config says.
    """
    if config.mmdet3d:
        return _mmdet3d_teacher(config, Path(config.mmdet3d))
    if config.weights == "random":
        return _random_teacher(config, index, dataroot)
    path = fitted or Path(config.weights)
    tensors, written = read_tensors(path), read_metadata(path)
    try:
        spec, reason = _spec_of(config, path, tensors, written)
        if reason:
            return _encoder_alone(config, path, tensors, spec, reason)
        detector = build(spec, convention_of(tensors))
        loaded = load_detector(detector, tensors)
    except WeightsMismatch as error:
        what = config.public_config or "the network of `lidar:`"
        raise UserError(f"{path}: does not fit {what}: {error}") from None
    if loaded.ignored:
        say(f"teacher: {path.name} ({loaded.layout.name}): ignored {', '.join(loaded.ignored)}")
    return _teacher(config, detector.encoder, detector.bev_backbone, detector)


def _spec_of(
    config: TeacherConfig, path: Path, tensors: dict[str, Tensor], written: dict[str, str]
) -> tuple[LidarSpec, str]:
    """What a file's weights are of, and why its encoder alone serves; empty where all of it does.

    written: the file's metadata. Raises UserError, and WeightsMismatch where its tensors do not tell.
    """
    if FITTED in written:
        return _fitted_spec(path, written, config.lidar), ""
    reason = why_encoder_alone(tensors) or ""
    if config.public_config:
        spec = _public_spec(Path(config.public_config), config.lidar)
        return spec, reason or ("" if spec.head else "its public config has no other part of a LiDAR detector")
    spec = encoder_spec(config.lidar)
    if reason:
        return spec, reason
    try:
        spec = described(tensors, spec)
        say(
            f"teacher: {path.name}: what no shape tells (attention heads, queries, limits of boxes, the norms' eps) is "
            "taken as published; teacher.public_config would say it"
        )
        return spec, ""
    except WeightsMismatch as error:
        if config.gate_samples == 0:
            return spec, str(error)
        raise WeightsMismatch(
            f"{error}; teacher.gate_samples = 0 takes its sparse encoder all the same, and checks nothing"
        ) from None


def _public_spec(file: Path, lidar: LidarConfig) -> LidarSpec:
    """The detector of `teacher.public_config`. UserError where it is none, or contradicts `lidar:`."""
    settings = read_public_config(file)
    try:
        spec, sweeps = read_lidar(settings), read_sweeps(settings)
    except UnreadableConfig as error:
        raise UserError(f"{file}: {error}") from None
    grid, encoder = spec.grid, spec.encoder
    told = {
        "range": grid.point_range,
        "voxel_size": grid.voxel_size,
        "max_points": grid.max_points,
        "max_voxels": grid.max_voxels,
        "sweeps": lidar.sweeps if sweeps is None else sweeps,
        "widths": encoder.widths,
        "out_width": encoder.out_width,
        "blocks": encoder.blocks[0] if len(set(encoder.blocks)) == 1 else lidar.blocks,  # ours says one number
    }
    for name, value in told.items():
        if value != getattr(lidar, name):
            raise UserError(f"{file}: says {name} = {value}, and lidar.{name} is {getattr(lidar, name)}; set it so")
    return spec


def _encoder_alone(
    config: TeacherConfig, path: Path, tensors: dict[str, Tensor], spec: LidarSpec, reason: str
) -> LidarTeacher:
    encoder = SparseEncoder(spec.grid.sparse_shape, spec.encoder)
    ignored = load_encoder(encoder, tensors)
    names = f"; ignored: {grouped(ignored, depth=1)}" if ignored else ""
    say(f"teacher: of {path.name} the sparse encoder alone serves, for {reason}{names}")
    return _teacher(config, encoder)


def _fitted_spec(path: Path, written: dict[str, str], wanted: LidarConfig) -> LidarSpec:
    """The detector of a file that `fit` wrote. UserError where it would load and be another: on another grid, or of a
    version of geomim that built it otherwise."""
    try:
        kept = json.loads(written[FITTED])
        fit, network = FitConfig.model_validate(kept["config"]), kept["network"]
    except ValidationError as error:
        raise UserError(
            f"{path}: was fitted by another version of geomim, or is damaged: {explain(error, FitConfig)}; fit it again"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        what = "what it says of its training is damaged, or of another version of geomim"
        raise UserError(f"{path}: {what}; fit it again") from None
    for name in LidarConfig.model_fields:
        fitted, now = getattr(fit.lidar, name), getattr(wanted, name)
        if fitted != now:
            raise UserError(f"{path}: was fitted with lidar.{name} = {fitted}, not {now}; set it so, or fit another")
    if found := first_difference(network, _network(fit)):
        name, then, now = found
        raise UserError(f"{path}: was fitted with {name} = {then}, and this version of geomim has {now}; fit it again")
    return detector_spec(fit)


def _teacher(
    config: TeacherConfig,
    encoder: SparseEncoder,
    bev_backbone: BEVBackbone | None = None,
    detector: LidarDetector | None = None,
) -> LidarTeacher:
    if config.output == "neck" and bev_backbone is None:
        raise UserError(f"teacher.output is neck, but {config.weights} holds a sparse encoder alone; set it to encoder")
    return LidarTeacher(config.lidar.grid, encoder, bev_backbone, detector, config.output)


def _random_teacher(config: TeacherConfig, index: Index, dataroot: Path) -> LidarTeacher:
    """Random weights with one sample's batch-norm statistics; without, features grow by layer, past float16's range."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_encoder(config.lidar)
        neck = BEVBackbone(BevBackboneSpec(config.lidar.bev_channels)) if config.output == "neck" else None
    for module in (*encoder.modules(), *(neck.modules() if neck else ())):
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    voxels = voxel_batch([torch.from_numpy(load_points(index, dataroot, 0, config.lidar.sweeps))], config.lidar.grid)
    with torch.inference_mode():
        bev = encoder.train()(*voxels)
        if neck:
            neck.train()(bev)
    return _teacher(config, encoder, neck)


def _mmdet3d_teacher(config: TeacherConfig, file: Path) -> Teacher:
    """file: the detector's config."""
    from models.lidar.mmdet3d_teacher import Layer, MMDet3DTeacher  # imports all of mmdet3d's models: seconds
    from models.openmmlab import DetectorUnavailable, read_config

    tensors: dict[str, Tensor] | None = None if config.weights == "random" else read_tensors(Path(config.weights))
    try:
        settings = read_config(file)
    except DetectorUnavailable as error:  # names the file itself
        raise UserError(str(error)) from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            layer: Layer = "middle_encoder" if config.output == "encoder" else "neck"
            teacher = MMDet3DTeacher(settings, layer, torch.device("cpu"))
        if tensors is not None:
            teacher.load(tensors)
    except DetectorUnavailable as error:
        raise UserError(f"{config.mmdet3d}: {error}") from None
    except WeightsMismatch as error:
        raise UserError(f"{config.weights}: does not fit {config.mmdet3d}: {error}") from None
    if teacher.sweeps != config.lidar.sweeps:
        raise UserError(
            f"{config.mmdet3d}: reads {teacher.sweeps} previous sweeps, and lidar.sweeps is {config.lidar.sweeps}; "
            "make it the same"
        )
    return teacher
