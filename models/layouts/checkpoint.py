"""Weights out of the files people have: which layout a file is in, and what of GeoMIM it fills.

The layout follows from the tensors' names. A network that begins from weights of another window or grid has its
position tables resized.
"""

import math
import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.layouts.convnext import convnext_sizes, read_convnext
from models.layouts.filling import Checkpoint, Filled, WeightsMismatch, fill
from models.layouts.geomim import (
    BACKBONE,
    CONSTANTS,
    MIXMAE_DECODER,
    TEACHER,
    decoder_from_mixmae,
    geomim_from_original,
)
from models.layouts.mim4d import read_mim4d
from models.layouts.resnet import read_resnet, resnet_sizes
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

_ANCHOR = re.compile(r"((?:.*\.)?)patch_embed\.(projection|proj)\.weight")  # one a Swin
_MMDET_SWIN = re.compile(r"patch_embed\.|absolute_pos_embed$|stages\.|norm[23]\.")
_ORIGINAL_SWIN = re.compile(r"patch_embed\.|absolute_pos_embed$|layers\.|norm\.")
_VIDEO = re.compile(r"video\.")  # what renders beside a GeoMIM, of which no file of GeoMIM's has anything
_MAY_LACK = re.compile(r"backbone\.(absolute_pos_embed$|norm[23]\.)")  # what a Swin pretrained elsewhere may not have


def read_layout(tensors: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint's tensors, whatever layout they are in. Raises WeightsMismatch unless it holds exactly one
    backbone of a kind."""
    anchors = [found for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if not anchors:
        if (other := read_mim4d(tensors) or read_convnext(tensors) or read_resnet(tensors)) is not None:
            return other
        shown = ", ".join(sorted(tensors)[:3]) or "no tensors"
        raise WeightsMismatch(
            "no Swin in it: no name ends in patch_embed.projection.weight or .proj.weight; nor a ConvNeXt or ResNet; "
            f"{shown} ..."
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
    may_lack = _VIDEO
    if not checkpoint.whole:
        may_lack = re.compile(rf"(?!backbone\.)|{_MAY_LACK.pattern}")
        if _shapes_below("decoder.blocks.", checkpoint.weights) != _shapes_below("decoder.blocks.", model.state_dict()):
            return fill(model, _backbone_of(checkpoint), backbone_sizes, may_lack=may_lack, resize=resized)
    return fill(model, checkpoint, backbone_sizes, may_lack=may_lack, resize=resized)


def fill_backbone(backbone: Backbone, checkpoint: Checkpoint) -> Filled:
    """Fill a backbone in place from any checkpoint's backbone; all else in it is ignored."""
    may_lack = None if checkpoint.whole else _MAY_LACK
    return fill(backbone, checkpoint, backbone_sizes, "backbone.", may_lack, resized)


def _backbone_of(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what it has beside its backbone."""
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if name.startswith("backbone.")}
    unused = [name for ours, name in checkpoint.names.items() if ours not in weights]
    return replace(checkpoint, weights=weights, ignored=sorted([*checkpoint.ignored, *unused]))


def resized(name: str, tensor: Tensor, shape: torch.Size) -> tuple[Tensor, str]:
    """A position table of another size as one of `shape`; any other tensor, or no square window's table, as it is."""
    what, made = "", tensor
    if name.endswith("relative_position_bias_table") and tensor.shape[1:] == shape[1:]:
        square = len(tensor) == (2 * window_of(tensor) - 1) ** 2
        what, made = "bias tables", resize_bias_table(tensor, math.isqrt(shape[0])) if square else tensor
    elif name.endswith("pos_embed") and tensor.shape[:2] == shape[:2] and tensor.ndim == 4:
        what, made = "position embedding", resize_position_embedding(tensor, shape[-1])
    if made.shape == tensor.shape:
        return tensor, ""
    return made, f"{what} {_size(tensor)} to {_size(made)}"


def _size(tensor: Tensor) -> str:
    side = tensor.shape[-1] if tensor.ndim == 4 else math.isqrt(len(tensor))
    return f"{side}x{side}"


def _shapes_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if name.startswith(prefix)}


def backbone_sizes(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What weights below `backbone.` say of a network, without what may be resized."""
    sizes = network_sizes(without_prefix(weights, "backbone."))
    return {field: size for field, size in sizes.items() if field not in ("window_sizes", "pretrain_grid")}


def network_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What our names (no prefix) say of a backbone, its name first; nothing where they are of none."""
    for name, anchor, sizes_of in (
        ("swin", "patch_embed.projection.weight", swin_sizes),
        ("convnext", "stem.0.weight", convnext_sizes),
        ("resnet", "layer1.0.conv1.weight", resnet_sizes),
    ):
        if anchor in state:
            return {"name": name, **sizes_of(state)}
    return {}
