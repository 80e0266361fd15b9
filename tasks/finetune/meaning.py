"""What gives a camera detector's weights their meaning: the fields of the config, and the whole network's spec."""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

from batches.images import MEAN, STD
from common.errors import UserError
from models.backbones.build import BackboneConfig
from models.backbones.config import ConvNeXtConfig, ResNetConfig, SwinConfig
from models.bevdet.detector import BevDet
from models.center_head import CenterPointHead
from models.center_spec import ONE_GROUP, SIX_GROUPS
from models.names import BEV_LAYERS, CLASSES, OCCUPANCY_CLASSES
from models.nms import RotatedNms
from models.public.bevdet import PublicBevDet
from tasks.finetune.config import EvaluateConfig, FinetuneConfig
from tasks.meaning import first_difference, plain

MOST_FRAMES, BEV_STAGES = 2, 3  # that `view.frames` and `bev_widths` can say

# In the metadata of a file that we write. The second is what it was called when it held seven fields alone.
DETECTOR, BEFORE = "geomim.detector", "geomim.finetune"

# Of the config: all that decides what a detector computes from a sample, but its backbone. What is left out says how it
# is trained, and which of its boxes are kept.
FIELDS = (
    "task",
    "image.size",
    "image.resize_test",
    "image.crop_h",
    "view.frames",
    "view.camera_aware",
    "view.aspp_width",
    "view.stereo",
    "view.depth_spacing",
    "view.channels",
    "view.key_ego",
    "view.truncate_cells",
    "bev_range",
    "bev_cell",
    "height",
    "depth_bins",
    "image_width",
    "context",
    "bev_widths",
    "bev_width",
    "class_groups",
    "head_width",
)
_BACKBONE = "backbone."
_BACKBONES = {f"{_BACKBONE}{name}" for kind in (SwinConfig, ConvNeXtConfig, ResNetConfig) for name in kind.model_fields}
# Of the network's spec: what decides which boxes are kept, and how the head learns.
_KEPT = ("score_threshold", "max_boxes", "keep_range", "rules")
_TARGETS, _LOSSES = ("slots", "gaussian_overlap", "min_radius"), ("code_weights", "box_weight", "heatmap_weight")
_NOT_THE_WEIGHTS = tuple(f"head.{name}" for name in (*_KEPT, *_TARGETS, *_LOSSES, "velocity_squared", "norm.momentum"))


def fields_of(config: FinetuneConfig) -> dict[str, Any]:
    """Field -> value, as JSON has it."""
    return _of_backbone(config.backbone) | {name: plain(attrgetter(name)(config)) for name in FIELDS}


def _of_backbone(config: BackboneConfig) -> dict[str, Any]:
    return {f"{_BACKBONE}{name}": value for name, value in ({"name": config.name} | config.key_fields()).items()}


def network_of(detector: BevDet) -> dict[str, Any]:
    """The whole spec, as JSON has it."""
    head = detector.head
    return {
        "classes": {"detection": CLASSES, "segmentation": BEV_LAYERS, "occupancy": OCCUPANCY_CLASSES},
        "pixels": {"mean": MEAN, "std": STD},
        "detector": plain(detector.spec),
        "head": plain(head.spec) if isinstance(head, CenterPointHead) else type(head).__name__,
    }


def metadata(detector: BevDet, config: FinetuneConfig) -> dict[str, str]:
    """Of a file of the detector's weights."""
    return {DETECTOR: json.dumps({"fields": fields_of(config), "network": network_of(detector)})}


def check(file: Path, written: dict[str, str], detector: BevDet, config: FinetuneConfig, zoomed: bool = False) -> str:
    """Refuse weights that would load and mean something else; what could not be checked, in a line.

    written: the file's metadata. zoomed: allows another `image.resize_test`. Raises UserError.
    """
    try:
        before = DETECTOR not in written
        kept = json.loads(written[BEFORE if before else DETECTOR])
        fields, network = (kept, None) if before else (kept["fields"], kept["network"])
        unknown = [name for name in fields if name not in FIELDS and name not in _BACKBONES]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{file}: what it says of its training is damaged; take another copy of it") from None
    if unknown:
        raise UserError(f"{file}: was trained with finetune.{unknown[0]}, which this version of geomim does not know")
    now = fields_of(config)
    if any(name.startswith(_BACKBONE) for name in fields):  # one without a name is a Swin, as all were once
        fields = {f"{_BACKBONE}name": "swin"} | fields
    apart_from = ("image.resize_test",) if zoomed else ()
    if found := first_difference(fields, {name: now.get(name) for name in fields}, apart_from):
        name, then, value = found
        what = "its own evaluation is at" if name == "image.resize_test" else "was trained with"
        raise UserError(f"{file}: {what} finetune.{name} = {then}, not {value}; set it so")
    if network and (found := first_difference(network, plain(network_of(detector)), _NOT_THE_WEIGHTS)):
        name, then, value = found
        raise UserError(f"{file}: was trained with {name} = {then}, and this version of geomim has {value}")
    unchecked = [name for name in now if name not in fields]
    return f"  not in the file, and so taken from the config: {', '.join(unchecked)}" if unchecked else ""


def taken_from(config: FinetuneConfig) -> str:
    """What no tensor of a public file says of its detector and the config answers, in a line."""
    view, image = config.view, config.image
    cells = "towards the origin" if view.truncate_cells else "by floor"
    return (
        f"  not in the file, and so taken from the config: view.channels {view.channels}, view.key_ego {view.key_ego}, "
        f"cells {cells}, image.resize_test {image.resize_test:g}, image.crop_h {list(image.crop_h)}, limits of boxes, "
        "non-maximum suppression; configs/released has the published ones, and --public-config would check them"
    )


def check_public(file: Path, public: PublicBevDet, config: FinetuneConfig, evaluate: EvaluateConfig) -> None:
    """Refuse a public config that contradicts ours. Raises UserError that names the field and both values, or says that
    ours has none for it."""
    if public.detector.frames > MOST_FRAMES:
        raise UserError(
            f"{file}: model.num_adj is {public.detector.frames - 1}: only 1, the frame before, can be loaded here"
        )
    ours = {f"finetune.{name}": value for name, value in fields_of(config).items()}
    ours |= {"evaluate.score_threshold": evaluate.score_threshold, "evaluate.nms": evaluate.nms}
    for name, value in plain(public_fields(public)).items():
        if value != (now := ours.get(f"finetune.{name}", ours.get(f"evaluate.{name}"))):
            section = "finetune" if f"finetune.{name}" in ours else "evaluate"
            raise UserError(f"{file}: says {section}.{name} = {value}, and the config says {now}; set it so")


def public_fields(public: PublicBevDet) -> dict[str, Any]:
    """What a public config says of our fields; those that it cannot say, or ours cannot, are left out."""
    spec, head = public.detector, public.head
    fields = _of_backbone(public.backbone) | {
        "task": "detection",
        "image.size": spec.image_size,
        "view.frames": spec.frames,
        "view.camera_aware": spec.camera_aware,
        "view.stereo": spec.stereo,
        "view.depth_spacing": spec.depth_bins.spacing,
        "view.channels": "bgr",  # the public code's way, whatever its config
        "view.key_ego": "camera",
        "view.truncate_cells": spec.truncate_cells,
        "bev_cell": spec.grid.cell,
        "height": spec.grid.z,
        "depth_bins": (spec.depth_bins.low, spec.depth_bins.high, spec.depth_bins.step),
        "image_width": spec.image_neck.out,
        "context": spec.context,
        "bev_width": spec.bev_neck.out,
        "head_width": head.width,
        "score_threshold": head.score_threshold,
        "nms": "rotated" if any(isinstance(rule, RotatedNms) for rule in head.rules) else "circle",
    }
    if spec.grid.x == spec.grid.y == (-spec.grid.x[1], spec.grid.x[1]):
        fields["bev_range"] = spec.grid.x[1]
    if len(spec.bev_encoder.widths) == BEV_STAGES:
        fields["bev_widths"] = spec.bev_encoder.widths
    if public.images is not None:
        fields |= {"image.resize_test": public.images.resize_test, "image.crop_h": public.images.crop_h}
    if spec.camera_aware:
        fields["view.aspp_width"] = spec.aspp_width
    names: dict[tuple[tuple[str, ...], ...], str] = {ONE_GROUP: "one", SIX_GROUPS: "six"}
    if groups := names.get(head.class_groups):
        fields["class_groups"] = groups
    return fields
