"""How layers begin."""

from torch import nn

SCORE_BIAS = -2.19  # sigmoid(-2.19) = 0.1: without it the first focal loss explodes


def kaiming_init(module: nn.Module) -> None:
    """Initialise convolutions as mmdet3d's `init_cfg` asks for: mmengine's init_weights() without its pages of log."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_scores(branch: nn.Module) -> None:
    """Initialise the last layer of what says a heatmap's scores: they begin at the bias's 0.1 everywhere.

    Random scores near 1 would cost the first dozens of steps.
    """
    *_, last = branch.children()
    nn.init.normal_(last.get_parameter("weight"), std=0.01)
    nn.init.constant_(last.get_parameter("bias"), SCORE_BIAS)


def init_linear(module: nn.Module) -> None:
    """Initialise linear layers as timm's and mmdet's Swin do: truncated normal weights of deviation 0.02, no biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
