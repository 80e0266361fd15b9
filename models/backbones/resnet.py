"""ResNet (arXiv 1512.03385) with its stride in the 3x3 convolution (v1.5); its names are torchvision's."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models.backbones.backbone import Backbone
from models.backbones.config import ResNetConfig
from models.initialise import kaiming_init
from models.layers import DropPath
from models.norm import LIKE_TORCH, Norm

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.")


class ResNet(Backbone):
    """A 7x7 stem, max pooling and four stages of residual blocks.

    Args:
        norm: of all layers.
        out_indices: the stages whose maps are meant for others.
        drop_path: rate of stochastic depth at the last block, rising linearly from 0 at the first.
    """

    def __init__(
        self,
        config: ResNetConfig,
        norm: Norm = LIKE_TORCH,
        out_indices: tuple[int, ...] = (2, 3),
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.channels, self.strides, self.depths = config.channels, config.strides, config.depths
        self.out_indices = out_indices
        self.conv1 = nn.Conv2d(3, config.widths[0], 7, 2, padding=3, bias=False)
        self.bn1 = norm.over_maps(config.widths[0])
        rates = iter(torch.linspace(0, drop_path, sum(self.depths)).tolist())
        block, channels = (Bottleneck if config.bottleneck else BasicBlock), config.widths[0]
        for stage, (depth, width) in enumerate(zip(self.depths, config.widths)):
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(channels, width, stride, norm, next(rates)))
                channels = self.channels[stage]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        kaiming_init(self)
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)  # a block begins as the identity

    def forward(self, images: Tensor, stop_at: int | None = None) -> list[Tensor]:
        """Maps of the stages up to `stop_at` (all if None), (M, C_i, H/s_i, W/s_i). images: (M, 3, H, W)."""
        maps = []
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, padding=1)
        for number in range(len(self.depths)):
            for block in self.get_submodule(f"layer{number + 1}").children():
                x = self._run(block, x)
            maps.append(x)
            if number == stop_at:
                break
        return maps

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing != "block" or not torch.is_grad_enabled():
            return block(x)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), norms_at_rest(block)

        return checkpoint(block, x, use_reentrant=False, context_fn=contexts)

    def layer_of(self, name: str) -> int:
        """See `Backbone.layer_of`."""
        if found := _BLOCK.match(name):
            stage, block = map(int, found.groups())
            return 1 + sum(self.depths[: stage - 1]) + block
        return 0


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, (M, channels_in, H, W) -> (M, width, H / stride, W / stride)."""

    def __init__(self, channels_in: int, width: int, stride: int, norm: Norm, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = norm.over_maps(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = norm.over_maps(width)
        self.downsample = shortcut(channels_in, width, stride, norm)
        self.drop_path = DropPath(drop_path)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.drop_path(branch) + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, (M, channels_in, H, W) -> (M, 4 width, H / stride, W / stride)."""

    def __init__(self, channels_in: int, width: int, stride: int, norm: Norm, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = norm.over_maps(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm.over_maps(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = norm.over_maps(4 * width)
        self.downsample = shortcut(channels_in, 4 * width, stride, norm)
        self.drop_path = DropPath(drop_path)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        branch = self.bn3(self.conv3(branch))
        return F.relu(self.drop_path(branch) + (x if self.downsample is None else self.downsample(x)))


def shortcut(channels_in: int, channels: int, stride: int, norm: Norm) -> nn.Module | None:
    """What brings a block's input to its output's shape; None where it has that."""
    if channels_in == channels and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), norm.over_maps(channels))


@contextmanager
def norms_at_rest(module: nn.Module) -> Iterator[None]:
    """Batch norms inside normalise by the batch and leave their running statistics: a block's second run counts not."""
    statistics = [
        norm.get_buffer(name)
        for norm in module.modules()
        if isinstance(norm, _BatchNorm)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    kept = [tensor.clone() for tensor in statistics]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(statistics, kept):
                tensor.copy_(before)
