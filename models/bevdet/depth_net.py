"""The camera-aware depth net (BEVDepth, arXiv 2206.10092), with or without the evidence of stereo (STS, 2208.10145)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.bevdet.encoder import ResidualBlock
from models.cameras import SCENE_VECTOR
from models.norm import LIKE_TORCH, Norm

DILATIONS = (6, 12, 18)


class CameraDepthNet(nn.Module):
    """Image features and what is known of the camera -> depth logits and context.

    Args:
        channels: of the features, and inside. bins: of depth. context: channels to lift.
        aspp_width: channels of each branch of the pyramid of dilated convolutions.
        stereo: depth is told from a cost volume too, four times as fine as the features (see `cost_volume`).

    Layers have the names of the released detectors, save `cost_net`.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        context: int,
        aspp_width: int,
        stereo: bool = False,
        norm: Norm = LIKE_TORCH,
    ):
        super().__init__()
        self.stereo = stereo
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), norm.over_maps(channels), nn.ReLU(inplace=True)
        )
        self.bn = norm.over_rows(SCENE_VECTOR)
        self.context_mlp, self.context_se = _Mlp(SCENE_VECTOR, channels), _Gate(channels)
        self.context_conv = nn.Conv2d(channels, context, 1)
        self.depth_mlp, self.depth_se = _Mlp(SCENE_VECTOR, channels), _Gate(channels)
        self.cost_net = None
        if stereo:
            self.cost_net = nn.Sequential(
                nn.Conv2d(bins, bins, 3, stride=2, padding=1),
                norm.over_maps(bins),
                nn.Conv2d(bins, bins, 3, stride=2, padding=1),
                norm.over_maps(bins),
            )
        self.depth_conv = nn.Sequential(
            ResidualBlock(channels + bins if stereo else channels, channels, shortcut=1 if stereo else None, norm=norm),
            ResidualBlock(channels, channels, norm=norm),
            ResidualBlock(channels, channels, norm=norm),
            Aspp(channels, aspp_width, norm),
            nn.Conv2d(channels, bins, 1),
        )

    def forward(self, features: Tensor, vector: Tensor, cost: Tensor | None = None) -> Tensor:
        """(M, bins + context, h, w): logits, then context.

        features: (M, C, h, w). vector: (M, 27), see `Cameras.scene_vector`: as precise as the norm's weights, also in
        bf16. cost: (M, bins, 4 h, 4 w), of a stereo net only; None where there is nothing to compare with, which is not
        the same as a cost volume that cannot tell.
        """
        x, vector = self.reduce_conv(features), self.bn(vector.to(self.bn.weight.dtype))
        context = self.context_conv(self.context_se(x, self.context_mlp(vector)))
        depth = self.depth_se(x, self.depth_mlp(vector))
        if self.cost_net is not None:
            if cost is None:
                height, width = x.shape[-2:]
                cost = x.new_zeros(len(x), self.cost_net[0].in_channels, 4 * height, 4 * width)
            depth = torch.cat([depth, self.cost_net(cost)], 1)
        return torch.cat([self.depth_conv(depth), context], 1)


class Aspp(nn.Module):
    """Convolutions of several dilations and the image's mean, side by side, then mixed: (M, C, h, w) -> the same."""

    def __init__(self, channels: int, width: int, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.aspp1 = _Dilated(channels, width, 1, 1, norm)
        self.aspp2, self.aspp3, self.aspp4 = (_Dilated(channels, width, 3, dilation, norm) for dilation in DILATIONS)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1, bias=False), norm.over_maps(width), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * width, channels, 1, bias=False)
        self.bn1 = norm.over_maps(channels)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        mean = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])
        return self.dropout(F.relu(self.bn1(self.conv1(torch.cat([*branches, mean], 1)))))


class _Dilated(nn.Module):
    def __init__(self, channels: int, width: int, kernel: int, dilation: int, norm: Norm):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.atrous_conv = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = norm.over_maps(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class _Mlp(nn.Module):
    def __init__(self, numbers: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(numbers, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, vector: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(vector)))


class _Gate(nn.Module):
    """A factor from 0 to 1 on every channel of x (M, C, h, w), told by a vector (M, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return x * self.conv_expand(F.relu(self.conv_reduce(vector[..., None, None]))).sigmoid()
