"""The LiDAR detector's weights out of the files people have: ours, mmdetection3d's BEVFusion, MIT's BEVFusion.

They differ in the names of the parts, in a few names within the head, and in how the head says boxes. The kernels of
sparse convolutions come in two layouts: spconv 1, mmcv and MIT (kx, ky, kz, in, out), which is this project's; spconv 2
(out, kx, ky, kz, in). They are told apart by where the input channels stand in the first, never by a version number.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.lidar.box_code import Convention
from models.lidar.detector import LidarDetector
from models.lidar.encoder import SparseEncoder
from models.lidar.transfusion import TransFusionHead

NAMES_SHOWN = 12  # of each kind of fault
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


def detector_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What a file says of the layers behind the encoder: `backbone_widths`, `backbone_layers`, `neck_width`, `upsample`
    and `head_width`. None where it is no LiDAR detector with a TransFusion head, and only its encoder can serve."""
    layout = _layout(tensors)
    if layout is None or any(_FUSION.match(name) for name in tensors):
        return None
    sizes = _sizes({ours: t for name, t in tensors.items() if (ours := layout.to_ours(name)) is not None})
    sizes["head_width"] = sizes.get("TransFusion's head_width")
    fields = ("backbone_widths", "backbone_layers", "neck_width", "upsample", "head_width")
    return {field: sizes[field] for field in fields} if all(sizes.get(field) for field in fields) else None


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
    """The sizes by which detectors differ, called as in the configs, from tensors named as in LidarDetector.

    Kernels are (kx, ky, kz, in, out). What the tensors don't tell is left out.
    """
    names = sorted(tensors)

    def along(axis: int, pattern: str) -> list[int]:
        shapes = [tensors[name].shape for name in names if re.fullmatch(pattern, name)]
        return [shape[axis] for shape in shapes if len(shape) > axis]

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in names)

    second, neck = r"bev_backbone\.backbone\.blocks", r"bev_backbone\.neck\.deblocks"
    sizes = {
        "widths": along(4, r"encoder\.(conv_input|encoder_layers\.encoder_layer\d\.\d+)\.0\.weight"),
        "blocks": [count(r"encoder\.encoder_layers\.encoder_layer1\.\d+\.conv1\.weight")],
        "out_width": along(4, r"encoder\.conv_out\.0\.weight"),
        "bev_channels": along(1, rf"{second}\.0\.0\.weight"),
        "backbone_widths": along(0, rf"{second}\.\d\.0\.weight"),
        "backbone_layers": [count(rf"{second}\.{block}\.(?!1\.)\d+\.running_mean") for block in (0, 1)],
        "neck_width": along(0, rf"{neck}\.0\.1\.weight"),
        "upsample": along(2, rf"{neck}\.0\.0\.weight"),
        "TransFusion's head_width": along(0, r"head\.class_encoding\.weight"),
        "TransFusion's classes": along(1, r"head\.class_encoding\.weight"),
        "TransFusion's ffn_width": along(0, r"head\.decoder\.\d\.linear1\.weight"),
        "CenterPoint's head_width": along(0, r"head\.net\.shared_conv\.conv\.weight"),
        "CenterPoint's classes": along(0, r"head\.net\.task_heads\.\d\.heatmap\.1\.weight"),
    }
    return {what: tuple(found) if len(found) > 1 else found[0] for what, found in sizes.items() if any(found)}


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
