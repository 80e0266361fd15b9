"""The reconstruction target: LiDAR BEV features, normalised patch by patch."""

from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6


def normalise_patches(bev: Tensor, patch: int) -> Tensor:
    """Each patch x patch square to mean 0 and (unbiased) variance 1, over its cells and channels together.

    bev: (B, C, X, Y), X and Y multiples of `patch`. An empty patch becomes 0.
    """
    if bev.shape[-2] % patch or bev.shape[-1] % patch:
        raise ValueError(f"A BEV of {bev.shape[-2]}x{bev.shape[-1]} cells has no whole number of {patch}-cell patches.")
    blocks = bev.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, X/p, p, Y/p, p)
    dims = (1, 3, 5)
    variance, mean = blocks.var(dims, keepdim=True), blocks.mean(dims, keepdim=True)
    return ((blocks - mean) / (variance + EPS).sqrt()).view_as(bev)


def reconstruction_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all cells, empty ones included."""
    return F.mse_loss(predicted.float(), target)
