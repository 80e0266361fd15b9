"""AdamW's parameter groups: rates that fall with depth into the backbone, weight decay that spares vectors."""

import re
from collections.abc import Iterator, Sequence

from torch import nn

_BLOCK = re.compile(r"backbone\.stages\.(\d+)\.(?:blocks\.(\d+)|(downsample))\.")
_STEM = ("backbone.patch_embed.", "backbone.absolute_pos_embed")


def parameter_groups(
    detector: nn.Module,
    depths: Sequence[int],
    rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    backbone_rate: float = 1.0,
) -> list[dict]:
    """A group for each rate, with weight decay and without: biases and other vectors have none.

    The rate of what has layer number i (see `layer_of`) is rate * layer_decay ^ (sum(depths) + 1 - i), BEiT's rule as
    GeoMIM's detectors follow it; in the backbone it is times `backbone_rate`. Parameters that are frozen are left out.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in _trained(detector):
        factor = layer_decay ** (sum(depths) + 1 - layer_of(name, depths))
        if name.startswith("backbone."):
            factor *= backbone_rate
        decays = parameter.dim() > 1 and not name.endswith(".bias")
        groups.setdefault((rate * factor, decays), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay if decays else 0.0}
        for (lr, decays), parameters in groups.items()
    ]


def layer_of(name: str, depths: Sequence[int]) -> int:
    """A parameter's layer: 0 for the stem, 1 to sum(depths) for the backbone's blocks, one more for all else.

    Merging patches belongs to the first block of the stage that it leads to.
    """
    if name.startswith(_STEM):
        return 0
    if found := _BLOCK.match(name):
        stage, block, merges = found.groups()
        first = 1 + sum(depths[: int(stage)])
        return first + (depths[int(stage)] if merges else int(block))
    return sum(depths) + 1


def _trained(detector: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in detector.named_parameters() if p.requires_grad)
