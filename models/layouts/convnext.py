"""A ConvNeXt's weights under the names of timm, torchvision, mmpretrain (mmdet's too) and the original, and under ours.

| ours, stage S, block B    | timm      | torchvision                | mmpretrain               | original           |
|---------------------------|-----------|----------------------------|--------------------------|--------------------|
| stem.0, .1                | the same  | features.0.0, .1           | downsample_layers.0.0, 1 | as mmpretrain      |
| stages.S.downsample.0, .1 | the same  | features.2S.0, .1          | downsample_layers.S.0, 1 | as mmpretrain      |
| stages.S.blocks.B.conv_dw | the same  | features.(2S+1).B.block.0  | stages.S.B.depthwise_conv| stages.S.B.dwconv  |
| .norm                     | the same  | .block.2                   | .norm                    | .norm              |
| .mlp.fc1, .mlp.fc2        | the same  | .block.3, .block.5         | .pointwise_conv1, 2      | .pwconv1, 2        |
| .gamma (C,)               | the same  | .layer_scale (C, 1, 1)     | .gamma                   | .gamma             |
| norm2                     | none      | none                       | the same                 | none               |
| norm3                     | head.norm | classifier.0               | the same                 | norm               |

norm3 is what classifiers have behind their pooling. Detectors on the original's code (UVTR, and so MIM4D and UniPAD)
name the norms of their maps by stage, as mmpretrain does; all else in them is the original's. Where mmpretrain's
pointwise convolutions are 1x1 convolutions (`linear_pw_conv=False`), they are read as the linear layers that they are,
and written as such.
"""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from models.layouts.filling import Checkpoint, WeightsMismatch
from models.layouts.renaming import Renaming, Rules
from models.layouts.swin import with_prefix, without_prefix

_STAGES = range(4)
_DOWNSAMPLE_LAYERS: Rules = (
    ("downsample_layers.0.", "stem."),
    *((f"downsample_layers.{stage}.", f"stages.{stage}.downsample.") for stage in _STAGES[1:]),
    *((f"stages.{stage}.", f"stages.{stage}.blocks.") for stage in _STAGES),
)
_OURS = Renaming((("stem.", "stem."), ("stages.", "stages."), ("norm2.", "norm2."), ("norm3.", "norm3.")))
_TIMM = Renaming((("stem.", "stem."), ("stages.", "stages."), ("head.norm.", "norm3.")))
_TORCHVISION = Renaming(
    (
        ("features.0.", "stem."),
        *((f"features.{2 * stage}.", f"stages.{stage}.downsample.") for stage in _STAGES[1:]),
        *((f"features.{2 * stage + 1}.", f"stages.{stage}.blocks.") for stage in _STAGES),
        ("classifier.0.", "norm3."),
        (".block.0.", ".conv_dw."),
        (".block.2.", ".norm."),
        (".block.3.", ".mlp.fc1."),
        (".block.5.", ".mlp.fc2."),
        (".layer_scale", ".gamma"),
    )
)
_MMPRETRAIN = Renaming(
    (
        *_DOWNSAMPLE_LAYERS,
        ("norm2.", "norm2."),
        ("norm3.", "norm3."),
        (".depthwise_conv.", ".conv_dw."),
        (".pointwise_conv1.", ".mlp.fc1."),
        (".pointwise_conv2.", ".mlp.fc2."),
    )
)
_ORIGINAL_BLOCK: Rules = ((".dwconv.", ".conv_dw."), (".pwconv1.", ".mlp.fc1."), (".pwconv2.", ".mlp.fc2."))
_ORIGINAL = Renaming((*_DOWNSAMPLE_LAYERS, ("norm.", "norm3."), *_ORIGINAL_BLOCK))
UVTR = Renaming((*_DOWNSAMPLE_LAYERS, ("norm2.", "norm2."), ("norm3.", "norm3."), *_ORIGINAL_BLOCK))

# What the first block's depthwise convolution is called -> the layout, and its names.
_LAYOUTS = {
    "stages.0.blocks.0.conv_dw": ("geomim", _OURS),
    "features.1.0.block.0": ("torchvision", _TORCHVISION),
    "stages.0.0.depthwise_conv": ("mmdet", _MMPRETRAIN),
    "stages.0.0.dwconv": ("convnext", _ORIGINAL),
}
_ANCHOR = re.compile(rf"((?:.*\.)?)({'|'.join(map(re.escape, _LAYOUTS))})\.weight")


def read_convnext(tensors: dict[str, Tensor]) -> Checkpoint | None:
    """A ConvNeXt in any of the layouts, below any prefix; None where there is none. Raises WeightsMismatch for two."""
    anchors = [found for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if not anchors:
        return None
    if len(anchors) > 1:
        raise WeightsMismatch(f"{len(anchors)} ConvNeXts in it, below {', '.join(repr(found[1]) for found in anchors)}")
    prefix, convolution = anchors[0].groups()
    layout, renaming = _LAYOUTS[convolution]
    inside = without_prefix(tensors, prefix)
    if layout == "geomim" and not any(name.startswith("norm2.") for name in inside):
        layout, renaming = "timm", _TIMM
    if layout == "convnext" and any(name.startswith(("norm2.", "norm3.")) for name in inside):
        layout, renaming = "uvtr", UVTR
    names = renaming.read(inside)
    weights = with_prefix({ours: _as_ours(ours, inside[theirs]) for ours, theirs in names.items()}, "backbone.")
    in_file = {f"backbone.{ours}": prefix + theirs for ours, theirs in names.items()}
    return Checkpoint(layout, False, weights, in_file, sorted(tensors.keys() - in_file.values()))


def convnext_to_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to timm's. norm2 has no place there."""
    return _written(state, _TIMM)


def convnext_to_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to torchvision's. norm2 has no place there."""
    return _written(state, _TORCHVISION, lambda name, x: x[:, None, None] if name.endswith(".layer_scale") else x)


def convnext_to_mmpretrain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to mmpretrain's."""
    return _written(state, _MMPRETRAIN)


def convnext_to_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to the original's. norm2 has no place there."""
    return _written(state, _ORIGINAL)


def convnext_to_uvtr(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names (no prefix) to those of detectors on the original's code, which look for them below `img_backbone.`."""
    return _written(state, UVTR)


def convnext_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What our names (no prefix) say of a ConvNeXt: its blocks and channels by stage."""
    found = re.compile(r"stages\.(\d+)\.blocks\.\d+\.conv_dw\.bias")
    channels: dict[int, list[int]] = {}
    for name, value in state.items():
        if block := found.fullmatch(name):
            channels.setdefault(int(block[1]), []).append(len(value))
    stages = [channels[stage] for stage in sorted(channels)]
    return {"depths": tuple(map(len, stages)), "channels": tuple(blocks[0] for blocks in stages)}


def _written(
    state: dict[str, Tensor], renaming: Renaming, convert: Callable[[str, Tensor], Tensor] = lambda name, x: x
) -> dict[str, Tensor]:
    names = {ours: renaming.to_theirs(ours) for ours in state}
    return {theirs: convert(theirs, state[ours]) for ours, theirs in names.items() if theirs is not None}


def _as_ours(name: str, tensor: Tensor) -> Tensor:
    """Scales as vectors, and pointwise convolutions as linear layers."""
    if name.endswith(".gamma"):
        return tensor.flatten()
    return tensor.flatten(1) if ".mlp." in name and tensor.ndim == 4 else tensor
