"""AdamW's parameter groups: rates that fall with depth into the backbone, weight decay that spares vectors."""

from collections.abc import Iterator

from torch import nn

from models.bevdet.detector import BevDet

_BACKBONE = "backbone."


def parameter_groups(
    detector: BevDet,
    rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    backbone_rate: float = 1.0,
) -> list[dict]:
    """A group for each rate, with weight decay and without: biases and other vectors have none.

    The rate of the backbone's layer i (see `Backbone.layer_of`) is rate * layer_decay ^ (sum(depths) + 1 - i), BEiT's
    rule as GeoMIM's detectors follow it, times `backbone_rate`; of all else it is `rate`. Parameters that are frozen
    are left out.
    """
    backbone = detector.backbone
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in _trained(detector):
        factor = 1.0
        if name.startswith(_BACKBONE):
            layers_behind = sum(backbone.depths) + 1 - backbone.layer_of(name.removeprefix(_BACKBONE))
            factor = layer_decay**layers_behind * backbone_rate
        decays = parameter.dim() > 1 and not name.endswith(".bias")
        groups.setdefault((rate * factor, decays), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay if decays else 0.0}
        for (lr, decays), parameters in groups.items()
    ]


def _trained(detector: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in detector.named_parameters() if p.requires_grad)
