"""Names and orders of weights in other people's checkpoints, and in this project's modules."""

from models.layouts.checkpoint import fill_backbone, fill_geomim, network_sizes, read_layout
from models.layouts.convnext import (
    convnext_to_mmpretrain,
    convnext_to_original,
    convnext_to_timm,
    convnext_to_torchvision,
    convnext_to_uvtr,
)
from models.layouts.filling import Checkpoint, Filled, WeightsMismatch, grouped
from models.layouts.geomim import geomim_from_original, geomim_to_original, original_constants
from models.layouts.swin import (
    swin_from_mmdet,
    swin_from_original,
    swin_sizes,
    swin_to_mmdet,
    swin_to_original,
    swin_to_timm,
    with_prefix,
    without_prefix,
)

__all__ = [
    "Checkpoint",
    "Filled",
    "WeightsMismatch",
    "convnext_to_mmpretrain",
    "convnext_to_original",
    "convnext_to_timm",
    "convnext_to_torchvision",
    "convnext_to_uvtr",
    "fill_backbone",
    "fill_geomim",
    "geomim_from_original",
    "geomim_to_original",
    "grouped",
    "network_sizes",
    "original_constants",
    "read_layout",
    "swin_from_mmdet",
    "swin_from_original",
    "swin_sizes",
    "swin_to_mmdet",
    "swin_to_original",
    "swin_to_timm",
    "with_prefix",
    "without_prefix",
]
