"""How convolutions begin."""

from torch import nn


def kaiming_init(module: nn.Module) -> None:
    """Initialise convolutions as mmdet3d's `init_cfg` asks for: mmengine's init_weights() without its pages of log."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
