"""A signed distance and a colour of points, from what a volume holds there: two small MLPs, and NeuS's opacity.

The distance's derivatives by the point and by the features are written out, like a backward pass: the colour depends
on them, and so a loss needs no second backward pass, gradients are there in inference mode too, and all compiles.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import ModuleList

_STEEP = 100  # of the softplus
_EPSILON = 1e-5


class Trunk(nn.Module):
    """Linear layers from a point, to each of which its features add something through a layer of their own.

    blocks: hidden layers; there is one more. The features' layers are one: (blocks + 1) * hidden outputs.
    """

    def __init__(self, features: int, hidden: int, out: int, blocks: int):
        super().__init__()
        self.point = nn.Linear(3, hidden)
        self.features = nn.Linear(features, (blocks + 1) * hidden)
        self.layers = ModuleList(nn.Linear(hidden, hidden if i < blocks else out) for i in range(blocks + 1))

    @property
    def linears(self) -> list[nn.Linear]:
        return list(self.layers)

    def additions(self, features: Tensor) -> tuple[Tensor, ...]:
        return self.features(features).chunk(len(self.layers), -1)


class Distance(NamedTuple):
    sdf: Tensor  # (...)
    geometry: Tensor  # (..., G)
    by_point: Tensor  # (..., 3), d sdf / d point with the features held
    by_features: Tensor  # (..., C), d sdf / d features


class SdfTrunk(Trunk):
    """Signed distance and geometry of points (..., 3) with features (..., C)."""

    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """(...): the distance alone."""
        return self._layers(points, features)[0][..., 0]

    def differentiated(self, points: Tensor, features: Tensor) -> Distance:
        out, before = self._layers(points, features)
        by = self.linears[-1].weight[0].expand(*points.shape[:-1], -1)  # d sdf / d the last layer's input
        by_inputs = [by]
        for layer, value in zip(self.linears[-2::-1], before[::-1]):
            by = (by * (_STEEP * value).sigmoid()) @ layer.weight
            by_inputs.append(by)
        by_features = torch.cat(by_inputs[::-1], -1) @ self.features.weight
        return Distance(out[..., 0], out[..., 1:], by @ self.point.weight, by_features)

    def _layers(self, points: Tensor, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What comes out, and what goes into each softplus."""
        x, before = self.point(points), []
        *hidden, last = zip(self.linears, self.additions(features))
        for layer, addition in hidden:
            before.append(layer(x + addition))
            x = F.softplus(before[-1], beta=_STEEP)
        layer, addition = last
        return layer(x + addition), before


class ColourTrunk(Trunk):
    def forward(self, points: Tensor, features: Tensor) -> Tensor:
        """(..., 3) in [0, 1]."""
        x = self.point(points)
        for i, (layer, addition) in enumerate(zip(self.layers, self.additions(features))):
            x = layer(x.relu() + addition if i else x + addition)
        return x.sigmoid()


class Field(nn.Module):
    """Both trunks, and the sharpness of surfaces, which is learned.

    Args: channels: of the features. hidden, sdf_blocks, rgb_blocks: see `Trunk`. geometry: channels from the distance's
    trunk to the colour's.
    """

    def __init__(self, channels: int, hidden: int, geometry: int, sdf_blocks: int, rgb_blocks: int):
        super().__init__()
        self.sdf = SdfTrunk(channels, hidden, 1 + geometry, sdf_blocks)
        self.rgb = ColourTrunk(3 + channels + 3 + geometry, hidden, 3, rgb_blocks)
        self.deviation = nn.Parameter(torch.tensor(0.3))

    def sharpness(self) -> Tensor:
        return (10 * self.deviation).exp().clamp(1e-6, 1e6)

    def alphas(self, sdf: Tensor, gradients: Tensor, directions: Tensor, lengths: Tensor, anneal: float) -> Tensor:
        """Opacities (...) of sections that start at samples with sdf (...), its gradients (..., 3), and are `lengths`
        (...) long in directions (..., 3). anneal: 1, or less while surfaces seen from behind shall still count."""
        cosine = (directions * gradients).sum(-1)
        slope = -(0.5 - 0.5 * cosine).relu() * (1 - anneal) - (-cosine).relu() * anneal  # never positive
        half, sharpness = slope * lengths * 0.5, self.sharpness()
        entering, leaving = ((sdf + side).mul(sharpness).sigmoid() for side in (-half, half))
        return ((entering - leaving + _EPSILON) / (entering + _EPSILON)).clamp(0, 1)
