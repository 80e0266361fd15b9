"""The LiDAR detector's weights out of the files people have: ours, mmdetection3d's BEVFusion, MIT's BEVFusion.

They differ in the names of the parts, in a few names within the head, and in how the head says boxes. The kernels of
sparse convolutions come in two layouts: spconv 1, mmcv and MIT (kx, ky, kz, in, out), which is this project's; spconv 2
(out, kx, ky, kz, in). They are told apart by where the input channels stand in the first, never by a version number.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.layouts.filling import Checkpoint, WeightsMismatch, fill, grouped, listed
from models.layouts.renaming import Renaming
from models.lidar.bev_backbone import BevBackboneSpec
from models.lidar.box_code import PARTS, Convention
from models.lidar.detector import LidarDetector, LidarSpec
from models.lidar.encoder import SparseEncoder
from models.lidar.transfusion import TransFusionHead, TransFusionSpec

# What `_sizes` must have found to describe what is behind the encoder.
_BACKBONE = ("bev_channels", "backbone_widths", "backbone_layers", "neck_widths", "upsamples")
_HEAD = ("head_width", "classes", "layers", "ffn_width", "branch_width", "branch_depths")
_ANCHOR = "conv_input.0.weight"  # of the encoder


@dataclass(frozen=True)
class Layout:
    """A kind of file: what it calls the detector's tensors, the encoder's first, and how its head says boxes."""

    name: str
    names: Renaming
    convention: Convention

    @property
    def encoder(self) -> str:
        """What stands before the encoder's names."""
        return self.names.rules[0][0]

    def to_file(self, name: str) -> str:
        """The file's name of a tensor of LidarDetector."""
        return self.names.to_theirs(name) or name


OURS = Layout(
    "geomim",
    Renaming((("encoder.", "encoder."), ("bev_backbone.", "bev_backbone."), ("head.", "head."))),
    Convention.MMDET3D,
)
MMDET3D = Layout(
    "mmdetection3d",
    Renaming(
        (
            ("pts_middle_encoder.", "encoder."),
            ("pts_backbone.", "bev_backbone.backbone."),
            ("pts_neck.", "bev_backbone.neck."),
            ("bbox_head.", "head."),
            (".self_attn.attn.", ".self_attn."),
            (".cross_attn.attn.", ".cross_attn."),
            (".ffn.layers.0.0.", ".linear1."),
            (".ffn.layers.1.", ".linear2."),
            (".norms.0.", ".norm1."),
            (".norms.1.", ".norm2."),
            (".norms.2.", ".norm3."),
        )
    ),
    Convention.MMDET3D,
)
MIT = Layout(
    "MIT",
    Renaming(
        (
            ("encoders.lidar.backbone.", "encoder."),
            ("decoder.backbone.", "bev_backbone.backbone."),
            ("decoder.neck.", "bev_backbone.neck."),
            ("heads.object.", "head."),
            (".multihead_attn.", ".cross_attn."),
        )
    ),
    Convention.MIT,
)
LAYOUTS = (OURS, MMDET3D, MIT)
_BARE = Layout("encoder", Renaming((("", "encoder."),)), Convention.MMDET3D)  # an encoder's own state

# What a LiDAR file may hold beside the detector: the statistics of steps that have nothing to learn.
IGNORED = re.compile(r"^(data_preprocessor|(pts_)?voxel_encoder|encoders\.lidar\.voxelize)\.")
# What only a file of camera and LiDAR holds. Its layers behind the encoder expect the fused map.
_FUSION = re.compile(r"^(fusion_layer|fuser|img_backbone|encoders\.camera)\.")


class Loaded(NamedTuple):
    """layout: what kind of file it was. ignored: names (ascending) of its tensors that the detector has no use for."""

    layout: Layout
    ignored: list[str]


def convention_of(tensors: Mapping[str, Tensor]) -> Convention:
    """How the head of a checkpoint says boxes: a TransFusion head is built for it."""
    layout = _layout(tensors, LAYOUTS)
    return layout.convention if layout else Convention.MMDET3D


def load_detector(detector: LidarDetector, tensors: Mapping[str, Tensor]) -> Loaded:
    """Fill the whole detector in place from a checkpoint's tensors.

    Strict: every parameter and buffer is filled from a tensor of its shape (BatchNorm's counts of batches may be
    missing), and every tensor of the file is used or is one that IGNORED describes. Otherwise WeightsMismatch, and
    nothing is changed. ValueError for a TransFusion head of another convention than `convention_of` the tensors.
    """
    layout = _known(tensors, LAYOUTS)
    fused = sorted(name for name in tensors if _FUSION.match(name))
    if fused:
        raise WeightsMismatch(
            f"it is of a detector of cameras and LiDAR ({fused[0]}, ...), whose layers behind the encoder read the map "
            "of both: only its encoder can serve; take the LiDAR-only file for the rest"
        )
    head = detector.head
    if isinstance(head, TransFusionHead) and head.convention is not layout.convention:
        raise ValueError(f"the head says boxes as {head.convention} does, the weights as {layout.convention} does")
    checkpoint = _read(tensors, layout, detector.encoder)
    fill(detector, checkpoint, _sizes)
    return Loaded(layout, checkpoint.ignored)


def why_encoder_alone(tensors: Mapping[str, Tensor]) -> str | None:
    """Why only the sparse encoder of a file can serve; None for a file that has, or should have, more."""
    if any(_FUSION.match(name) for name in tensors):
        return "it is of a detector of cameras and LiDAR, whose layers behind the encoder read the map of both"
    layout = _layout(tensors, LAYOUTS)
    encoder = layout.encoder if layout else ""
    if all(name.startswith(encoder) or IGNORED.match(name) for name in tensors):
        return "it holds no other part of a detector"
    return None


def described(tensors: Mapping[str, Tensor], spec: LidarSpec) -> LidarSpec:
    """A file's LiDAR detector with a TransFusion head, as far as its tensors' shapes tell.

    spec: grid and encoder, which the file must have been made with. What shapes do not tell is as published: attention
    heads, queries, SECOND's first stride, the limits of boxes, the norms' eps. Raises WeightsMismatch for a file
    that is not such a detector.
    """
    layout = _known(tensors, LAYOUTS)
    names = layout.names.read(tensors)
    given = {ours: tensors[name] for ours, name in names.items()}
    sizes = _sizes(given)
    if any(name not in sizes for name in (*_BACKBONE, *(f"TransFusion's {name}" for name in _HEAD))):
        other = _unknown(tensors, names) or [name for ours, name in names.items() if ours.startswith("head.")]
        raise WeightsMismatch(
            f"behind its encoder is no SECOND, SECONDFPN and TransFusion head under the names of {layout.name}: what "
            f"{len(other)} of its {len(tensors)} tensors are is unknown ({grouped(sorted(other), depth=1)})"
        )
    if len({len(sizes[name]) for name in _BACKBONE[1:]}) != 1:
        raise WeightsMismatch(listed("not one number a level", [f"{n} {sizes[n]}" for n in _BACKBONE[1:]]))
    resizes = [
        _resize(given[f"bev_backbone.neck.deblocks.{level}.0.weight"], width, neck_width)
        for level, (width, neck_width) in enumerate(zip(sizes["backbone_widths"], sizes["neck_widths"]))
    ]
    upsamples = tuple(upsample for upsample, _ in resizes)
    try:
        backbone = BevBackboneSpec(
            sizes["bev_channels"],
            sizes["backbone_widths"],
            sizes["backbone_layers"],
            (1, *(round(after / before) for before, after in pairwise(upsamples))),
            sizes["neck_widths"],
            upsamples,
            conv_if_same=all(is_conv for upsample, is_conv in resizes if upsample == 1),
        )
        x, y = (size * spec.encoder.stride / backbone.scale for size in spec.grid.voxel_size[:2])
        head = TransFusionSpec(
            backbone.out_channels,
            spec.grid.point_range,
            (x, y),
            sizes["TransFusion's classes"],
            width=sizes["TransFusion's head_width"],
            ffn_width=sizes["TransFusion's ffn_width"],
            decoder_layers=sizes["TransFusion's layers"],
            branch_width=sizes["TransFusion's branch_width"],
            branch_depths=sizes["TransFusion's branch_depths"],
        )
        return replace(spec, bev_backbone=backbone, head=head)
    except ValueError as error:
        raise WeightsMismatch(f"{error}, as far as shapes tell; its public config would say") from None


def _resize(weight: Tensor, width: int, neck_width: int) -> tuple[float, bool]:
    """By how much a branch of SECONDFPN upsamples, and whether it does so by a plain convolution (out, in, k, k) or a
    transposed one (in, out, k, k). Of equal channels the shape says nothing: as published then."""
    kernel = weight.shape[2]
    is_conv = kernel == 1 if width == neck_width else tuple(weight.shape[:2]) == (neck_width, width)
    return (1 / kernel if is_conv else kernel), is_conv


def load_encoder(encoder: SparseEncoder, tensors: Mapping[str, Tensor]) -> list[str]:
    """Fill the encoder alone in place; the names (ascending) of the tensors it has no use for.

    Takes the files of `load_detector`, those of camera and LiDAR detectors, and an encoder's own. As strict below the
    encoder's prefix.
    """
    layout = _known(tensors, (*LAYOUTS, _BARE))
    if layout is _BARE:  # all that is no encoder's is somebody else's
        own = encoder.state_dict()
        beside = sorted(name for name in tensors if name not in own)
        tensors = {name: tensor for name, tensor in tensors.items() if name in own}
        return sorted([*beside, *fill(encoder, _read(tensors, layout, encoder), _sizes, "encoder.").ignored])
    checkpoint = _read(tensors, layout, encoder)
    filled = fill(encoder, replace(checkpoint, unknown=()), _sizes, "encoder.")
    return sorted([*filled.ignored, *checkpoint.unknown])


def _layout(tensors: Mapping[str, Tensor], layouts: Iterable[Layout]) -> Layout | None:
    return next((known for known in layouts if known.encoder + _ANCHOR in tensors), None)


def _known(tensors: Mapping[str, Tensor], layouts: Iterable[Layout]) -> Layout:
    found = _layout(tensors, layouts)
    if found is None:
        raise WeightsMismatch(
            f"no sparse encoder in it: none of {', '.join(known.encoder + _ANCHOR for known in layouts)}; "
            f"it has {', '.join(sorted(tensors)[:3]) or 'no tensors'} ..."
        )
    return found


def _read(tensors: Mapping[str, Tensor], layout: Layout, encoder: SparseEncoder) -> Checkpoint:
    """A file's tensors by our names, kernels as in `encoder`."""
    names = layout.names.read(tensors)
    anchor = tensors[layout.encoder + _ANCHOR].shape
    turn = _kernel_layout(anchor, encoder.state_dict()[_ANCHOR].shape)
    weights = {ours: tensors[name] for ours, name in names.items()}
    return Checkpoint(
        layout.name,
        True,
        {name: tensor.permute(turn) if tensor.ndim == 5 else tensor for name, tensor in weights.items()},
        names,
        sorted(name for name in tensors if IGNORED.match(name)),
        _unknown(tensors, names),
        layout.to_file,
    )


def _unknown(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """The file's names of tensors that are neither the detector's nor known to be of no use."""
    known = set(names.values())
    return [name for name in tensors if name not in known and not IGNORED.match(name)]


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes by which detectors differ, called as in the specs, from tensors named as in LidarDetector.

    Kernels are (kx, ky, kz, in, out). What the tensors don't tell is left out.
    """
    names = sorted(tensors)

    def along(axis: int, pattern: str) -> tuple[int, ...]:
        shapes = [tensors[name].shape for name in names if re.fullmatch(pattern, name)]
        return tuple(shape[axis] for shape in shapes if len(shape) > axis)

    def counts(pattern: str) -> tuple[int, ...]:
        """How many names fit, by their first group."""
        found = Counter(match[1] for name in names if (match := re.fullmatch(pattern, name)))
        return tuple(found[key] for key in sorted(found))

    def first(values: tuple[int, ...]) -> int | None:
        return values[0] if values else None

    level = r"encoder\.encoder_layers\.encoder_layer"
    second, neck = r"bev_backbone\.backbone\.blocks", r"bev_backbone\.neck\.deblocks"
    branch = r"head\.prediction_heads\.0\."
    blocks = counts(rf"{level}(\d+)\.\d+\.conv1\.weight")
    sizes = {
        "widths": along(4, rf"encoder\.conv_input\.0\.weight|{level}\d+\.\d+\.0\.weight"),
        "blocks": blocks if len(set(blocks)) > 1 else first(blocks),
        "out_width": first(along(4, r"encoder\.conv_out\.0\.weight")),
        "bev_channels": first(along(1, rf"{second}\.0\.0\.weight")),
        "backbone_widths": along(0, rf"{second}\.\d\.0\.weight"),
        "backbone_layers": tuple(count - 1 for count in counts(rf"{second}\.(\d)\.\d+\.running_mean")),
        "neck_widths": along(0, rf"{neck}\.\d\.1\.weight"),
        "upsamples": along(2, rf"{neck}\.\d\.0\.weight"),
        "TransFusion's head_width": first(along(0, r"head\.class_encoding\.weight")),
        "TransFusion's classes": first(along(1, r"head\.class_encoding\.weight")),
        "TransFusion's layers": len(along(0, r"head\.decoder\.\d\.linear1\.weight")),
        "TransFusion's ffn_width": first(along(0, r"head\.decoder\.\d\.linear1\.weight")),
        "TransFusion's branch_width": first(along(0, rf"{branch}heatmap\.0\.conv\.weight")),
        "TransFusion's branch_depths": tuple(
            1 + len(along(0, rf"{branch}{part}\.\d\.conv\.weight")) for part in (*PARTS, "heatmap")
        )
        if any(re.match(branch, name) for name in names)
        else None,
        "CenterPoint's head_width": first(along(0, r"head\.net\.shared_conv\.conv\.weight")),
        "CenterPoint's classes": along(0, r"head\.net\.task_heads\.\d\.heatmap\.1\.weight"),
    }
    return {what: found for what, found in sizes.items() if found}


def _kernel_layout(anchor: torch.Size, wanted: torch.Size) -> tuple[int, ...]:
    """The permutation that brings a file's kernels to (kx, ky, kz, in, out)."""
    if tuple(anchor[:4]) == (3, 3, 3, wanted[3]):
        return (0, 1, 2, 3, 4)
    if tuple(anchor[1:]) == (3, 3, 3, wanted[3]):
        return (1, 2, 3, 4, 0)
    raise WeightsMismatch(
        f"{_ANCHOR} is {tuple(anchor)}: neither (3, 3, 3, {wanted[3]}, out) (spconv 1) "
        f"nor (out, 3, 3, 3, {wanted[3]}) (spconv 2)"
    )
