"""The networks of the configs, and the teacher with its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.center_head import ONE_GROUP, SIX_GROUPS, CenterPointHead
from models.lidar.checkpoint import CheckpointMismatch, detector_sizes, load_detector, load_encoder
from models.lidar.detector import BEVBackbone, LidarDetector, voxel_batch
from models.lidar.encoder import SparseEncoder
from models.lidar.teacher import LidarTeacher, Teacher
from models.lidar.transfusion import TransFusionHead
from storage.index import Index
from tasks.batches.points import load_points
from tasks.checkpoints import read_metadata, read_tensors
from tasks.errors import UserError
from tasks.progress import say
from tasks.teacher.config import ATTENTION_HEADS, FitConfig, LidarConfig, TeacherConfig

WEIGHTS = "detector.safetensors"
FITTED = "geomim.fit"  # in the weights' metadata: the config they were fitted with


def build_encoder(lidar: LidarConfig, norm_momentum: float = 0.01) -> SparseEncoder:
    """The encoder alone, with weights drawn from torch's global generator."""
    return SparseEncoder(
        shape=lidar.grid.sparse_shape,
        widths=lidar.widths,
        out_width=lidar.out_width,
        blocks=lidar.blocks,
        norm_momentum=norm_momentum,
    )


def build_detector(config: FitConfig) -> LidarDetector:
    """The whole detector, with weights drawn from torch's global generator."""
    lidar = config.lidar
    backbone = BEVBackbone(
        lidar.bev_channels,
        config.backbone_widths,
        config.backbone_layers,
        config.neck_width,
        config.upsample,
        config.norm_momentum,
    )
    cell_size = tuple(size / config.upsample for size in lidar.cell_size)
    common = {
        "in_channels": 2 * config.neck_width,
        "range": lidar.range,
        "cell_size": cell_size,
        "width": config.head_width,
        "score_threshold": config.score_threshold,
        "min_radius": config.gaussian_radius,
    }
    if config.head == "transfusion":
        head = TransFusionHead(**common, queries=config.queries, heads=ATTENTION_HEADS, ffn_width=2 * config.head_width)
    else:
        head = CenterPointHead(**common, class_groups=SIX_GROUPS if config.class_groups == "six" else ONE_GROUP)
    return LidarDetector(build_encoder(lidar, config.norm_momentum), backbone, head)


def build_teacher(config: TeacherConfig, index: Index, dataroot: Path, fitted: Path | None) -> Teacher:
    """The teacher with its weights, on the CPU. fitted: the file of `weights: fit`.

    Raises UserError for a file that is not what the config says.
    """
    if config.mmdet3d:
        return _mmdet3d_teacher(config)
    if config.weights == "random":
        return _random_teacher(config, index, dataroot)
    path = fitted or Path(config.weights)
    tensors, fit_config = read_tensors(path), read_metadata(path).get(FITTED)
    lidar = config.lidar
    try:
        if fit_config:
            fit = FitConfig.model_validate_json(fit_config)
            _check_lidar(path, fit.lidar, lidar)
        elif (sizes := detector_sizes(tensors)) is None:  # an encoder alone
            encoder = build_encoder(lidar)
            ignored = load_encoder(encoder, tensors)
            say(f"teacher: of {path.name} the sparse encoder alone serves; {len(ignored)} other tensors are ignored")
            return _teacher(config, encoder)
        else:
            fit = FitConfig(lidar=lidar, head="transfusion", score_threshold=0, **sizes)
        detector = build_detector(fit)
        loaded = load_detector(detector, tensors)
    except CheckpointMismatch as error:
        raise UserError(f"{path}: does not fit the network of `lidar:`: {error}") from None
    if loaded.ignored:
        say(f"teacher: {path.name} ({loaded.layout.name}): ignored {', '.join(loaded.ignored)}")
    return _teacher(config, detector.encoder, detector.bev_backbone, detector)


def _teacher(config: TeacherConfig, *parts: Any) -> LidarTeacher:
    if config.output == "neck" and len(parts) == 1:
        raise UserError(f"teacher.output is neck, but {config.weights} holds a sparse encoder alone; set it to encoder")
    return LidarTeacher(config.lidar.grid, *parts, output=config.output)


def _check_lidar(path: Path, fitted: LidarConfig, wanted: LidarConfig) -> None:
    """Weights that load would still be wrong on another grid."""
    for name in LidarConfig.model_fields:
        if getattr(fitted, name) != getattr(wanted, name):
            raise UserError(
                f"{path}: was fitted with lidar.{name} = {getattr(fitted, name)}, not {getattr(wanted, name)}; "
                "set it so, or fit another"
            )


def _random_teacher(config: TeacherConfig, index: Index, dataroot: Path) -> LidarTeacher:
    """Random weights with one sample's batch-norm statistics; without, features grow by layer, past float16's range."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        parts = [build_encoder(config.lidar)]
        if config.output == "neck":
            parts.append(BEVBackbone(config.lidar.bev_channels))
    bev = voxel_batch([torch.from_numpy(load_points(index, dataroot, 0, config.lidar.sweeps))], config.lidar.grid)
    for part in parts:
        for module in part.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.inference_mode():
            bev = part.train()(*bev) if isinstance(bev, tuple) else part.train()(bev)
    return _teacher(config, *parts)


def _mmdet3d_teacher(config: TeacherConfig) -> Teacher:
    from models.lidar.mmdet3d_teacher import MMDet3DTeacher  # imports all of mmdet3d's models: seconds
    from models.openmmlab import DetectorUnavailable, read_config

    tensors: dict[str, Tensor] | None = None if config.weights == "random" else read_tensors(Path(config.weights))
    try:
        settings = read_config(Path(config.mmdet3d))
    except DetectorUnavailable as error:  # names the file itself
        raise UserError(str(error)) from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            layer = "middle_encoder" if config.output == "encoder" else "neck"
            teacher = MMDet3DTeacher(settings, layer, torch.device("cpu"))
        if tensors is not None:
            teacher.load(tensors)
    except DetectorUnavailable as error:
        raise UserError(f"{config.mmdet3d}: {error}") from None
    except CheckpointMismatch as error:
        raise UserError(f"{config.weights}: does not fit {config.mmdet3d}: {error}") from None
    if teacher.sweeps != config.lidar.sweeps:
        raise UserError(
            f"{config.mmdet3d}: reads {teacher.sweeps} previous sweeps, and lidar.sweeps is {config.lidar.sweeps}; "
            "make it the same"
        )
    return teacher
