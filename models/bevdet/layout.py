"""Names of weights in public BEVDet checkpoints (GeoMIM's finetuned detectors among them), and in `BevDet`.

| public                                             | ours                 |
|----------------------------------------------------|----------------------|
| img_backbone (mmdet's Swin)                        | backbone             |
| img_neck                                           | image_neck           |
| img_view_transformer.depth_net                     | depth_net            |
| img_view_transformer.depth_net.cost_volumn_net     | depth_net.cost_net   |
| pre_process_net                                    | pre_encoder          |
| img_bev_encoder_backbone                           | bev_encoder          |
| img_bev_encoder_neck                               | bev_neck             |
| pts_bbox_head                                      | head.net             |

Layers below have the same names. The released stereo detectors feed their BEV encoder the earliest frame first and the
key frame last, all others the key frame first, as `BevDet` does: its first layer's channels are put in our order.
"""

import re
from typing import Any

from torch import Tensor

from models.bevdet.detector import BevDet
from models.layouts.checkpoint import network_sizes
from models.layouts.filling import Checkpoint, Filled, WeightsMismatch, fill
from models.layouts.renaming import Renaming
from models.layouts.swin import BUFFERS, swin_from_mmdet, swin_to_mmdet, without_prefix

_PUBLIC = Renaming(
    (
        ("img_backbone.", "backbone."),
        ("img_neck.", "image_neck."),
        ("img_view_transformer.depth_net.cost_volumn_net.", "depth_net.cost_net."),
        ("img_view_transformer.depth_net.", "depth_net."),
        ("pre_process_net.", "pre_encoder."),
        ("img_bev_encoder_backbone.", "bev_encoder."),
        ("img_bev_encoder_neck.", "bev_neck."),
        ("pts_bbox_head.", "head.net."),
    )
)
_STEREO, _CONTEXT = "depth_net.cost_net.0.weight", "depth_net.context_conv.weight"
_FIRST_LAYER = ("bev_encoder.layers.0.0.conv1.weight", "bev_encoder.layers.0.0.downsample.weight")

_ANCHOR = re.compile(r"(.*)img_backbone\.patch_embed\.projection\.weight")
# What follows from the config; and the second set of weights that mmcv's EMA hook keeps under flattened names: the one
# that it swapped out, the running mean stands under the plain names.
_CONSTANTS = re.compile(r"(^|\.)img_view_transformer\.(dx|bx|nx|frustum|cv_frustum)$|(^|\.)ema_[a-z_\d]+$")


def bevdet_from_public(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A public BEVDet state dict with this project's names. Entries that `BevDet` has no place for are left out."""
    return _reordered(swin_from_mmdet({ours: state[public] for ours, public in _PUBLIC.read(state).items()}))


def bevdet_to_public(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of `BevDet` to the public ones, with a Swin's index buffers."""
    renamed = {}
    for name, value in _reordered(state).items():
        one = {name: value}
        for ours, tensor in (swin_to_mmdet(one) if name.startswith("backbone.") else one).items():
            renamed[_PUBLIC.to_theirs(ours) or ours] = tensor
    return renamed


def read_bevdet(tensors: dict[str, Tensor]) -> Checkpoint:
    """A public detector checkpoint below any prefix. Of two sets of weights the running mean's (EMA) is read.

    Raises WeightsMismatch unless it holds a detector on a Swin.
    """
    prefixes = [found[1] for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if len(prefixes) > 1:
        prefixes = [prefix for prefix in prefixes if "ema" in prefix]
    if len(prefixes) != 1:
        what = "several detectors" if prefixes else "no public BEVDet on a Swin"
        raise WeightsMismatch(f"{what} in it: names that end in img_backbone.patch_embed.projection.weight: {prefixes}")
    (prefix,) = prefixes
    tensors = {n: t for n, t in tensors.items() if not _CONSTANTS.search(n) and not BUFFERS.search(n)}
    inside = without_prefix(tensors, prefix)
    weights = bevdet_from_public(inside)
    kept = [prefix + public for public in _PUBLIC.read(inside).values()]
    names = dict(zip(weights, kept, strict=True))
    return Checkpoint("bevdet", True, weights, names, sorted(tensors.keys() - set(kept)))


def fill_bevdet(detector: BevDet, checkpoint: Checkpoint) -> Filled:
    """Fill a detector in place: all of it, and every tensor as it is: with position tables of another size it would be
    another detector. Raises WeightsMismatch."""
    return fill(detector, checkpoint, detector_sizes)


def detector_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What our names say of a detector, called as the arguments of `Swin` and `BevDet`; None where they don't say.

    bins: of depth. classes: of each group of the head.
    """

    def side(name: str, dimension: int = 0) -> int | None:
        return state[name].shape[dimension] if name in state else None

    camera_aware = _CONTEXT in state
    inputs = side(_FIRST_LAYER[0], 1)
    context = side(_CONTEXT) or side("pre_encoder.layers.0.0.conv1.weight") or inputs
    bins = side("depth_net.depth_conv.4.weight") if camera_aware else side("depth_net.weight")
    if bins and context and not camera_aware:
        bins -= context
    heatmap = re.compile(r"head\.net\.task_heads\.\d+\.heatmap\.1\.weight")
    return network_sizes(without_prefix(state, "backbone.")) | {
        "image_out": side("image_neck.conv.3.weight"),
        "frames": inputs and context and inputs // context,
        "camera_aware": camera_aware,
        "stereo": _STEREO in state,
        "bins": bins,
        "context": context,
        "bev_widths": tuple(side(f"bev_encoder.layers.{stage}.0.conv1.weight") for stage in range(3)),
        "bev_out": side("bev_neck.up2.4.weight"),
        "classes": tuple(len(value) for name, value in state.items() if heatmap.fullmatch(name)),
    }


def _reordered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names: a stereo detector's first BEV layer with its frames in the opposite order. Its own inverse."""
    if _STEREO not in state:
        return state
    context = len(state[_CONTEXT])
    first = {
        name: state[name].unflatten(1, (-1, context)).flip(1).flatten(1, 2) for name in _FIRST_LAYER if name in state
    }
    return state | first
