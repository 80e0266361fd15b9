"""BEVDet's residual encoder of bird's-eye-view maps."""

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the input or, by a kernel's side, a biased convolution without norm."""

    def __init__(self, channels: int, out: int, stride: int = 1, shortcut: int | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None if shortcut is None else nn.Conv2d(channels, out, shortcut, stride, shortcut // 2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResidualEncoder(nn.Module):
    """Stages of `blocks` residual blocks, the first of each with a projected shortcut and the stage's stride."""

    def __init__(self, channels: int, widths: tuple[int, ...], stride: int = 2, blocks: int = 2):
        super().__init__()
        self.layers = nn.ModuleList()
        for width in widths:
            first = ResidualBlock(channels, width, stride, shortcut=3)
            self.layers.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(blocks - 1))))
            channels = width

    def forward(self, bev: Tensor) -> list[Tensor]:
        """(B, C, Y, X) -> every stage's map, (B, width_i, Y / stride^(i+1), X / stride^(i+1))."""
        maps = []
        for layer in self.layers:
            bev = layer(bev)
            maps.append(bev)
        return maps
