"""BEVDet's residual encoder of bird's-eye-view maps."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from models.norm import LIKE_TORCH, Norm


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the input or, by a kernel's side, a biased convolution without norm."""

    def __init__(self, channels: int, out: int, stride: int = 1, shortcut: int | None = None, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = norm.over_maps(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = norm.over_maps(out)
        self.downsample = None if shortcut is None else nn.Conv2d(channels, out, shortcut, stride, shortcut // 2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


@dataclass(frozen=True)
class ResidualSpec:
    """One number a stage: channels, residual blocks, and the stride of the first. Raises ValueError else."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...] = (2, 2, 2)
    strides: tuple[int, ...] = (2, 2, 2)

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.blocks) == len(self.strides) > 0:
            raise ValueError(f"{self}: all must have one number a stage")


class ResidualEncoder(nn.Module):
    """Stages of residual blocks, the first of each with a projected shortcut and the stage's stride."""

    def __init__(self, channels: int, spec: ResidualSpec, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.layers = nn.ModuleList()
        for width, blocks, stride in zip(spec.widths, spec.blocks, spec.strides):
            first = ResidualBlock(channels, width, stride, shortcut=3, norm=norm)
            self.layers.append(
                nn.Sequential(first, *(ResidualBlock(width, width, norm=norm) for _ in range(blocks - 1)))
            )
            channels = width

    def forward(self, bev: Tensor) -> list[Tensor]:
        """(B, C, Y, X) -> every stage's map, (B, width_i, Y / strides so far, X / strides so far)."""
        maps = []
        for layer in self.layers:
            bev = layer(bev)
            maps.append(bev)
        return maps
