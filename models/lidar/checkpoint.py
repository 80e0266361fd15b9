"""The LiDAR detector's weights out of the files people have: ours, mmdetection3d's BEVFusion, MIT's BEVFusion.

They differ in the names of the parts, in a few names within the head, and in how the head says boxes. The kernels of
sparse convolutions come in two layouts: spconv 1, mmcv and MIT (kx, ky, kz, in, out), which is this project's; spconv 2
(out, kx, ky, kz, in). They are told apart by where the input channels stand in the first, never by a version number.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.layouts.checkpoint import grouped
from models.lidar.bev_backbone import BevBackboneSpec
from models.lidar.box_code import PARTS, Convention
from models.lidar.detector import LidarDetector, LidarSpec
from models.lidar.encoder import SparseEncoder
from models.lidar.transfusion import TransFusionHead, TransFusionSpec

NAMES_SHOWN = 12  # of each kind of fault
# What `_sizes` must have found to describe what is behind the encoder.
_BACKBONE = ("bev_channels", "backbone_widths", "backbone_layers", "neck_widths", "upsamples")
_HEAD = ("head_width", "classes", "layers", "ffn_width", "branch_width", "branch_depths")
_ANCHOR = "conv_input.0.weight"  # of the encoder


class CheckpointMismatch(ValueError):
    """A checkpoint that does not fill the network; the text says in which sizes they differ and names the tensors."""


@dataclass(frozen=True)
class Layout:
    """Where a kind of file keeps the detector's parts, and what it calls them.

    parts: (its prefix, the prefix in LidarDetector), the encoder first; inner: (its words, ours) anywhere in a name.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    inner: tuple[tuple[str, str], ...]
    convention: Convention

    def to_ours(self, name: str) -> str | None:
        """The name in LidarDetector of a tensor of the file; None for one that belongs to no part."""
        return _renamed(name, self.parts, self.inner)

    def to_file(self, name: str) -> str:
        """The other way round."""
        back = [tuple((ours, theirs) for theirs, ours in pairs) for pairs in (self.parts, self.inner)]
        return _renamed(name, *back) or name


OURS = Layout(
    "geomim",
    (("encoder.", "encoder."), ("bev_backbone.", "bev_backbone."), ("head.", "head.")),
    (),
    Convention.MMDET3D,
)
MMDET3D = Layout(
    "mmdetection3d",
    (
        ("pts_middle_encoder.", "encoder."),
        ("pts_backbone.", "bev_backbone.backbone."),
        ("pts_neck.", "bev_backbone.neck."),
        ("bbox_head.", "head."),
    ),
    (
        (".self_attn.attn.", ".self_attn."),
        (".cross_attn.attn.", ".cross_attn."),
        (".ffn.layers.0.0.", ".linear1."),
        (".ffn.layers.1.", ".linear2."),
        (".norms.0.", ".norm1."),
        (".norms.1.", ".norm2."),
        (".norms.2.", ".norm3."),
    ),
    Convention.MMDET3D,
)
MIT = Layout(
    "MIT",
    (
        ("encoders.lidar.backbone.", "encoder."),
        ("decoder.backbone.", "bev_backbone.backbone."),
        ("decoder.neck.", "bev_backbone.neck."),
        ("heads.object.", "head."),
    ),
    ((".multihead_attn.", ".cross_attn."),),
    Convention.MIT,
)
LAYOUTS = (OURS, MMDET3D, MIT)

# What a LiDAR file may hold beside the detector: the statistics of steps that have nothing to learn.
IGNORED = re.compile(r"^(data_preprocessor|(pts_)?voxel_encoder|encoders\.lidar\.voxelize)\.")
# What only a file of camera and LiDAR holds. Its layers behind the encoder expect the fused map.
_FUSION = re.compile(r"^(fusion_layer|fuser|img_backbone|encoders\.camera)\.")


class Loaded(NamedTuple):
    """layout: what kind of file it was. ignored: names (ascending) of its tensors that the detector has no use for."""

    layout: Layout
    ignored: list[str]


def load_detector(detector: LidarDetector, tensors: Mapping[str, Tensor]) -> Loaded:
    """Fill the whole detector in place from a checkpoint's tensors, and set its head to the file's box convention.

    Strict: every parameter and buffer is filled from a tensor of its shape (BatchNorm's counts of batches may be
    missing), and every tensor of the file is used or is one that IGNORED describes. Otherwise CheckpointMismatch, and
    nothing is changed.
    """
    layout = _layout(tensors)
    if layout is None:
        raise _no_encoder([known.parts[0][0] for known in LAYOUTS], tensors)
    fused = sorted(name for name in tensors if _FUSION.match(name))
    if fused:
        raise CheckpointMismatch(
            f"it is of a detector of cameras and LiDAR ({fused[0]}, ...), whose layers behind the encoder read the map "
            "of both: only its encoder can serve; take the LiDAR-only file for the rest"
        )
    ignored = sorted(name for name in tensors if IGNORED.match(name))
    stray = [name for name in tensors if layout.to_ours(name) is None and name not in ignored]
    given = {ours: tensor for name, tensor in tensors.items() if (ours := layout.to_ours(name)) is not None}
    _fill(detector, given, "", layout.to_file, stray)
    if isinstance(detector.head, TransFusionHead):
        detector.head.convention = layout.convention
    return Loaded(layout, ignored)


def why_encoder_alone(tensors: Mapping[str, Tensor]) -> str | None:
    """Why only the sparse encoder of a file can serve; None for a file that has, or should have, more."""
    if any(_FUSION.match(name) for name in tensors):
        return "it is of a detector of cameras and LiDAR, whose layers behind the encoder read the map of both"
    layout = _layout(tensors)
    encoder = layout.parts[0][0] if layout else ""
    if all(name.startswith(encoder) or IGNORED.match(name) for name in tensors):
        return "it holds no other part of a detector"
    return None


def described(tensors: Mapping[str, Tensor], spec: LidarSpec) -> LidarSpec:
    """A file's LiDAR detector with a TransFusion head, as far as its tensors' shapes tell.

    spec: grid and encoder, which the file must have been made with. What shapes do not tell is as published: attention
    heads, queries, SECOND's first stride, the limits of boxes, the norms' eps. Raises CheckpointMismatch for a file
    that is not such a detector.
    """
    layout = _layout(tensors)
    if layout is None:
        raise _no_encoder([known.parts[0][0] for known in LAYOUTS], tensors)
    given = {ours: t for name, t in tensors.items() if (ours := layout.to_ours(name)) is not None}
    stray = [name for name in tensors if layout.to_ours(name) is None and not IGNORED.match(name)]
    sizes = _sizes(given)
    if any(name not in sizes for name in (*_BACKBONE, *(f"TransFusion's {name}" for name in _HEAD))):
        other = stray or [name for name in tensors if (layout.to_ours(name) or "").startswith("head.")]
        raise CheckpointMismatch(
            f"behind its encoder is no SECOND, SECONDFPN and TransFusion head under the names of {layout.name}: what "
            f"{len(other)} of its {len(tensors)} tensors are is unknown ({grouped(sorted(other), depth=1)})"
        )
    if len({len(sizes[name]) for name in _BACKBONE[1:]}) != 1:
        raise CheckpointMismatch(_listed("not one number a level", [f"{n} {sizes[n]}" for n in _BACKBONE[1:]]))
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
        head = TransFusionSpec(
            backbone.out_channels,
            spec.grid.range,
            tuple(size * spec.encoder.stride / backbone.scale for size in spec.grid.voxel_size[:2]),
            sizes["TransFusion's classes"],
            width=sizes["TransFusion's head_width"],
            ffn_width=sizes["TransFusion's ffn_width"],
            decoder_layers=sizes["TransFusion's layers"],
            branch_width=sizes["TransFusion's branch_width"],
            branch_depths=sizes["TransFusion's branch_depths"],
        )
        return replace(spec, bev_backbone=backbone, head=head)
    except ValueError as error:
        raise CheckpointMismatch(f"{error}, as far as shapes tell; its public config would say") from None


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
    prefixes = [layout.parts[0][0] for layout in LAYOUTS] + [""]
    prefix = next((p for p in prefixes if p + _ANCHOR in tensors), None)
    if prefix is None:
        raise _no_encoder(prefixes, tensors)
    own = encoder.state_dict()
    given = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if prefix == "":
        given = {name: tensor for name, tensor in given.items() if name in own}
    _fill(encoder, given, "encoder.", lambda name: prefix + name)
    used = {prefix + name for name in given}
    return sorted(name for name in tensors if name not in used)


def _layout(tensors: Mapping[str, Tensor]) -> Layout | None:
    return next((known for known in LAYOUTS if known.parts[0][0] + _ANCHOR in tensors), None)


def _fill(
    module: nn.Module,
    given: Mapping[str, Tensor],
    place: str,
    to_file: Callable[[str], str],
    stray: Sequence[str] = (),
) -> None:
    """Load `given`, named as in the module, in place. place: the module's prefix in LidarDetector; to_file: from the
    module's names to the file's, for messages; stray: the file's names that are none of the module's."""
    own = module.state_dict()
    anchor = ("encoder." + _ANCHOR).removeprefix(place)
    turn = _kernel_layout(given[anchor].shape, own[anchor].shape)
    given = {name: t.permute(turn) if t.ndim == 5 else t for name, t in given.items()}

    shared = own.keys() & given.keys()
    reshaped = [name for name in shared if given[name].shape != own[name].shape]
    faults = {
        "missing": [to_file(n) for n in own.keys() - shared if not n.endswith("num_batches_tracked")],
        "unexpected": [to_file(n) for n in given.keys() - shared] + list(stray),
        "of another shape": [f"{to_file(n)} {tuple(given[n].shape)} for {tuple(own[n].shape)}" for n in reshaped],
        "with values that are not finite": [to_file(n) for n in shared if not torch.isfinite(given[n]).all()],
    }
    if not any(faults.values()):
        module.load_state_dict(given, strict=False)
        return
    in_file, in_config = (_sizes({place + name: t for name, t in side.items()}) for side in (given, own))
    differences = [
        f"{what}: {in_file.get(what, 'none')} in the file, {in_config.get(what, 'none')} in the config"
        for what in in_config | in_file
        if in_file.get(what) != in_config.get(what)
    ]
    raise CheckpointMismatch("; ".join(differences + [_listed(kind, names) for kind, names in faults.items() if names]))


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
    raise CheckpointMismatch(
        f"{_ANCHOR} is {tuple(anchor)}: neither (3, 3, 3, {wanted[3]}, out) (spconv 1) "
        f"nor (out, 3, 3, 3, {wanted[3]}) (spconv 2)"
    )


def _renamed(name: str, parts: Iterable[tuple[str, str]], inner: Iterable[tuple[str, str]]) -> str | None:
    for before, after in parts:
        if name.startswith(before):
            rest = name.removeprefix(before)
            for old, new in inner:
                rest = rest.replace(old, new)
            return after + rest
    return None


def _no_encoder(prefixes: Iterable[str], tensors: Mapping[str, Tensor]) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"no sparse encoder in it: none of {', '.join(p + _ANCHOR for p in prefixes)}; "
        f"it has {', '.join(sorted(tensors)[:3]) or 'no tensors'} ..."
    )


def _listed(kind: str, names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    return f"{kind}: {', '.join(sorted(names)[:NAMES_SHOWN])}{more}"
