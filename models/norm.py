"""Batch normalisation's two numbers, which published networks do not agree on and no weight's shape tells."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Norm:
    """eps is added to the variance; momentum is the weight of a batch in the running statistics."""

    eps: float = 1e-5
    momentum: float = 0.1

    def over_rows(self, channels: int) -> nn.BatchNorm1d:
        """Of features (N, channels) or (B, channels, N)."""
        return nn.BatchNorm1d(channels, eps=self.eps, momentum=self.momentum)

    def over_maps(self, channels: int) -> nn.BatchNorm2d:
        """Of maps (B, channels, X, Y)."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)


LIKE_TORCH = Norm()
LIKE_SECOND = Norm(1e-3, 0.01)  # of the LiDAR networks, all of which descend from SECOND
