"""A ResNet's weights: torchvision, timm, mmdet and mmpretrain have the same names for them, and so have we.

No tensor tells where a bottleneck's stride is: in its 3x3 convolution as here, which is what torchvision, timm and
mmdet's `style="pytorch"` have, or in its first one (`style="caffe"`).
"""

import re
from typing import Any

from torch import Tensor

from models.layouts.filling import Checkpoint, WeightsMismatch
from models.layouts.swin import with_prefix, without_prefix

_ANCHOR = re.compile(r"((?:.*\.)?)layer1\.0\.conv1\.weight")
_RESNET = re.compile(r"(conv1|bn1|layer[1-4])\.")


def read_resnet(tensors: dict[str, Tensor]) -> Checkpoint | None:
    """A ResNet below any prefix; None where there is none. Raises WeightsMismatch for two."""
    prefixes = [found[1] for name in tensors if (found := _ANCHOR.fullmatch(name))]
    if not prefixes:
        return None
    if len(prefixes) > 1:
        raise WeightsMismatch(f"{len(prefixes)} ResNets in it, below {', '.join(map(repr, prefixes))}")
    (prefix,) = prefixes
    kept = {name: tensor for name, tensor in without_prefix(tensors, prefix).items() if _RESNET.match(name)}
    names = {f"backbone.{name}": prefix + name for name in kept}
    ignored = sorted(tensors.keys() - names.values())
    return Checkpoint("torchvision", False, with_prefix(kept, "backbone."), names, ignored)


def resnet_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What its names (no prefix) say of a ResNet: blocks and channels by stage."""
    last = "bn3" if "layer1.0.bn3.weight" in state else "bn2"  # of a block
    found = re.compile(rf"layer(\d)\.\d+\.{last}\.weight")
    channels: dict[str, list[int]] = {}
    for name, value in state.items():
        if block := found.fullmatch(name):
            channels.setdefault(block[1], []).append(len(value))
    stages = [channels[stage] for stage in sorted(channels)]
    return {"depths": tuple(map(len, stages)), "channels": tuple(blocks[0] for blocks in stages)}
