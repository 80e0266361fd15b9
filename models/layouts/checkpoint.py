"""Weights out of the files people have: which layout a file is in, what it fills, and what is left.

The layout follows from the tensors' names. Filling is strict: every tensor of the file is used, or is named as ignored;
every tensor of the network is filled, or is one that the layout does not have and is named as left; otherwise
WeightsMismatch lists what does not fit, and nothing is changed.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layouts.geomim import (
    BACKBONE,
    CONSTANTS,
    MIXMAE_DECODER,
    TEACHER,
    decoder_from_mixmae,
    geomim_from_original,
)
from models.layouts.swin import (
    BUFFERS,
    swin_from_mmdet,
    swin_from_original,
    swin_sizes,
    window_of,
    with_prefix,
    without_prefix,
)
from models.layouts.tables import resize_bias_table, resize_position_embedding
from models.swin import Swin

NAMES_SHOWN = 8  # of each kind of fault
_ANCHOR = re.compile(r"((?:.*\.)?)patch_embed\.(projection|proj)\.weight")  # one a Swin
_MMDET_SWIN = re.compile(r"patch_embed\.|absolute_pos_embed$|stages\.|norm[23]\.")
_ORIGINAL_SWIN = re.compile(r"patch_embed\.|absolute_pos_embed$|layers\.|norm\.")
_MAY_LACK = re.compile(r"backbone\.(absolute_pos_embed$|norm[23]\.)")  # what a Swin pretrained elsewhere may not have


class WeightsMismatch(ValueError):
    """Weights that do not fill a network; the text says in which sizes they differ and lists the tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors, told by their names.

    layout: for people. whole: it is meant to fill all of GeoMIM. weights: name in `models.geomim.model.GeoMIM` ->
    tensor; `backbone.*` in any case, more where the file has more. names: the same names -> those in the file.
    ignored: the file's names of tensors without a place; buffers that follow from the config are not listed.
    """

    layout: str
    whole: bool
    weights: dict[str, Tensor]
    names: dict[str, str]
    ignored: list[str]


@dataclass(frozen=True)
class Filled:
    """What became of a network, and of a file.

    filled, left: names in the network (left as they were); resized: what, from and to -> how many; ignored: names in
    the file.
    """

    filled: list[str]
    left: list[str]
    resized: Counter[str]
    ignored: list[str]

    def __str__(self) -> str:
        resized = ", ".join(what if count == 1 else f"{what} ({count})" for what, count in self.resized.items())
        parts = {
            "filled": grouped(self.filled, depth=1),
            "resized": resized,
            "left as initialised": grouped(self.left),
            "ignored": grouped(self.ignored),
        }
        return "\n".join(f"  {what}: {names}" for what, names in parts.items() if names)


def read_layout(tensors: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint's tensors, whatever layout they are in. Raises WeightsMismatch unless it holds exactly one Swin."""
    anchors = [found for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if not anchors:
        shown = ", ".join(sorted(tensors)[:3]) or "no tensors"
        raise WeightsMismatch(
            f"no Swin in it: no name ends in patch_embed.projection.weight or .proj.weight; {shown} ..."
        )
    if len(anchors) > 1:
        raise WeightsMismatch(f"{len(anchors)} Swins in it, below {', '.join(repr(found[1]) for found in anchors)}")
    prefix, convolution = anchors[0].groups()
    tensors = {name: tensor for name, tensor in tensors.items() if not BUFFERS.search(name)}
    inside = without_prefix(tensors, prefix)
    if convolution == "proj":
        return _of_original_swin(tensors, prefix, inside)
    layout = "mmdet" if any(".attn.w_msa." in name for name in inside) else "geomim"
    if layout == "mmdet" and prefix.endswith(BACKBONE) and "decoder_embed_new.weight" in inside:
        return _whole_of_original(tensors, prefix.removesuffix(BACKBONE))
    root = prefix.removesuffix("backbone.")
    if layout == "geomim" and root != prefix and f"{root}decoder.embed.weight" in tensors:
        kept = without_prefix(tensors, root)
        return _checkpoint(layout, True, tensors, root, kept, kept)
    kept = {name: tensor for name, tensor in inside.items() if _MMDET_SWIN.match(name)}
    weights = swin_from_mmdet(kept) if layout == "mmdet" else kept
    return _checkpoint(layout, False, tensors, prefix, kept, with_prefix(weights, "backbone."))


def _whole_of_original(tensors: dict[str, Tensor], root: str) -> Checkpoint:
    """root: what stands before the original's names."""
    tensors = {n: t for n, t in tensors.items() if not CONSTANTS.match(n.removeprefix(root))}
    kept = {n: t for n, t in without_prefix(tensors, root).items() if not n.startswith(TEACHER)}
    return _checkpoint("original", True, tensors, root, kept, geomim_from_original(kept))


def _of_original_swin(tensors: dict[str, Tensor], prefix: str, inside: dict[str, Tensor]) -> Checkpoint:
    decoder = {name: tensor for name, tensor in inside.items() if MIXMAE_DECODER.match(name)}
    kept = {name: tensor for name, tensor in inside.items() if _ORIGINAL_SWIN.match(name)}
    layout = "swin" if any(name.startswith("layers.0.downsample.") for name in kept) else "timm"
    if decoder:
        # MixMAE's last norm belongs to its decoder's input: GeoMIM begins without it, and so with a fresh norm3.
        layout, kept = "MixMAE", {name: tensor for name, tensor in kept.items() if not name.startswith("norm.")}
    weights = with_prefix(swin_from_original(kept), "backbone.") | decoder_from_mixmae(decoder)
    return _checkpoint(layout, False, tensors, prefix, kept | decoder, weights)


def _checkpoint(
    layout: str,
    whole: bool,
    tensors: dict[str, Tensor],
    prefix: str,
    kept: dict[str, Tensor],
    weights: dict[str, Tensor],
) -> Checkpoint:
    """kept: what is used, named as in the file below `prefix`; weights: the same, in the same order, by our names."""
    names = {ours: prefix + theirs for ours, theirs in zip(weights, kept, strict=True)}
    return Checkpoint(layout, whole, weights, names, sorted(tensors.keys() - names.values()))


def fill_geomim(model: nn.Module, checkpoint: Checkpoint) -> Filled:
    """Fill a `GeoMIM` in place: all of it from a whole checkpoint, else the backbone.

    MixMAE's decoder begins the model's where its blocks have the same number and sizes, as in the original.
    """
    own, weights, ignored = model.state_dict(), checkpoint.weights, checkpoint.ignored
    may_lack = None
    if not checkpoint.whole:
        may_lack = re.compile(rf"(?!backbone\.)|{_MAY_LACK.pattern}")
        if _shapes_below("decoder.blocks.", weights) != _shapes_below("decoder.blocks.", own):
            decoder = {name for name in weights if name.startswith("decoder.")}
            weights = {name: tensor for name, tensor in weights.items() if name not in decoder}
            ignored = sorted([*ignored, *(checkpoint.names[name] for name in decoder)])
    given, filled = fitted(own, weights, checkpoint.names, may_lack, ignored, backbone_sizes, resized)
    model.load_state_dict(given, strict=False)
    return filled


def fill_backbone(backbone: Swin, checkpoint: Checkpoint) -> Filled:
    """Fill a Swin in place from any checkpoint's backbone; all else in it is ignored."""
    own = with_prefix(backbone.state_dict(), "backbone.")
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith("backbone.")}
    unused = [checkpoint.names[name] for name in checkpoint.weights if name not in weights]
    may_lack = None if checkpoint.whole else _MAY_LACK
    ignored = sorted([*checkpoint.ignored, *unused])
    given, filled = fitted(own, weights, checkpoint.names, may_lack, ignored, backbone_sizes, resized)
    backbone.load_state_dict(without_prefix(given, "backbone."), strict=False)
    return filled


def fitted(
    own: dict[str, Tensor],
    weights: dict[str, Tensor],
    names: dict[str, str],
    may_lack: re.Pattern | None,
    ignored: list[str],
    sizes_of: Callable[[dict[str, Tensor]], dict[str, Any]],
    resize: Callable[[str, Tensor, torch.Size], Tensor],
) -> tuple[dict[str, Tensor], Filled]:
    """`weights`, resized, and what became of them.

    may_lack: names in `own` that may stay as they are. names, ignored: as in `Checkpoint`. sizes_of: what weights say
    of their network, called as in the config. resize: `resized` where a network begins from other weights, `as_it_is`
    where it is to be the one that they are of. Raises WeightsMismatch.
    """
    given, tables = {}, Counter()
    for name in filter(weights.__contains__, own):
        given[name] = resize(name, weights[name], own[name].shape)
        if given[name].shape != weights[name].shape:
            what = "position embedding" if name.endswith("pos_embed") else "bias tables"
            tables[f"{what} {_size(weights[name])} to {_size(given[name])}"] += 1
    lacking = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    left = [name for name in lacking if may_lack and may_lack.match(name)]
    other = [name for name in given if given[name].shape != own[name].shape]
    faults = {
        "missing": sorted(set(lacking) - set(left)),
        "unexpected": sorted(names[name] for name in weights if name not in own),
        "of another shape": sorted(f"{names[n]} {tuple(given[n].shape)} for {tuple(own[n].shape)}" for n in other),
        "with values that are not finite": sorted(names[n] for n, t in given.items() if not torch.isfinite(t).all()),
    }
    if any(faults.values()):
        raise WeightsMismatch(
            "; ".join(
                [
                    *_differences(sizes_of(weights), sizes_of(own)),
                    *(_listed(kind, found) for kind, found in faults.items() if found),
                ]
            )
        )
    return given, Filled(list(given), left, tables, ignored)


def as_it_is(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The tensor, whatever is wanted."""
    return tensor


def resized(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """A position table of another size as one of `shape`; any other tensor, or no square window's table, as it is."""
    if name.endswith("relative_position_bias_table") and tensor.shape[1:] == shape[1:]:
        square = len(tensor) == (2 * window_of(tensor) - 1) ** 2
        return resize_bias_table(tensor, math.isqrt(shape[0])) if square else tensor
    if name.endswith("pos_embed") and tensor.shape[:2] == shape[:2] and tensor.ndim == 4:
        return resize_position_embedding(tensor, shape[-1])
    return tensor


def _size(tensor: Tensor) -> str:
    side = tensor.shape[-1] if tensor.ndim == 4 else math.isqrt(len(tensor))
    return f"{side}x{side}"


def _shapes_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if name.startswith(prefix)}


def backbone_sizes(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What weights below `backbone.` say of a Swin, without what may be resized."""
    sizes = swin_sizes(without_prefix(weights, "backbone."))
    return {field: sizes[field] for field in ("embed_dim", "depths", "num_heads")}


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """In which sizes two networks differ."""
    return [f"{f} is {theirs[f]} in the file, {ours[f]} in the config" for f in ours if theirs.get(f) != ours[f]]


def _listed(kind: str, names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    return f"{kind}: {', '.join(names[:NAMES_SHOWN])}{more}"


def grouped(names: Iterable[str], depth: int = 2) -> str:
    """Names for people: how many begin with the same `depth` parts, whatever of `weight` and `bias`."""
    layers = (name.removesuffix(".weight").removesuffix(".bias") for name in names)
    counts = Counter(".".join(layer.split(".")[:depth]) for layer in layers)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
