"""The detector of a config, and how a pretrained backbone gets into it."""

from pathlib import Path

import torch

from models.bevdet.detector import BevDet
from models.center_head import ONE_GROUP, CenterPointHead
from models.depth_bins import DepthBins
from models.layouts import WeightsMismatch, fill_backbone, read_layout
from models.lift_splat import BevGrid
from tasks.backbone import build_backbone
from tasks.checkpoints import read_tensors
from tasks.errors import UserError
from tasks.finetune.config import FinetuneConfig
from tasks.progress import say


def build_detector(config: FinetuneConfig) -> BevDet:
    """The whole detector, with weights drawn from torch's global generator."""
    span, height = (-config.bev_range, config.bev_range), config.height
    grid = BevGrid(span, span, height, config.bev_cell)
    head = CenterPointHead(
        config.bev_width,
        (span[0], span[0], height[0], span[1], span[1], height[1]),
        (config.bev_cell, config.bev_cell),
        ONE_GROUP,
        config.head_width,
        config.score_threshold,
        min_radius=config.gaussian_radius,
    )
    detector = BevDet(
        build_backbone(config.backbone, config.drop_path),
        head,
        grid,
        DepthBins(*config.depth_bins),
        config.image.size,
        config.image_width,
        config.context,
        config.bev_widths,
        config.bev_width,
    )
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = config.norm_momentum
    return detector


def load_backbone(detector: BevDet, file: Path) -> None:
    """Put the backbone of a checkpoint in any known layout into the detector.

    Strict: every weight must be there; position tables of other sizes are resized. Raises UserError.
    """
    try:
        filled = fill_backbone(detector.backbone, read_layout(read_tensors(file)))
    except WeightsMismatch as error:
        remedy = "set `backbone` to what it was trained with"
        raise UserError(f"{file}: is no backbone of this config: {error}; {remedy}") from None
    if filled.left:
        lacking = ", ".join(filled.left)
        raise UserError(f"{file}: is no whole backbone: {lacking} missing; take one that GeoMIM pretrained")
    if filled.resized or filled.ignored:
        say(f"finetune: backbone of {file.name}\n{filled}")


def parameter_groups(detector: BevDet, weight_decay: float) -> list[dict]:
    """Parameters for AdamW: matrices and kernels with weight decay; biases, norms and other vectors without."""
    matrices = [p for p in detector.parameters() if p.dim() > 1]
    vectors = [p for p in detector.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
