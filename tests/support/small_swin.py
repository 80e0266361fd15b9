"""A Swin of a few channels."""

from models.backbones.config import SwinConfig
from models.backbones.swin import Swin


def small_swin(
    windows: tuple[int, ...] = (8, 4, 4, 4),
    depths: tuple[int, ...] = (1, 1, 1, 1),
    num_heads: tuple[int, ...] = (1, 2, 2, 4),
    grid: int = 7,
    embed_dim: int = 8,
    **how,
) -> Swin:
    """With weights drawn from torch's global generator. how: the other arguments of `Swin`."""
    config = SwinConfig(
        embed_dim=embed_dim, depths=depths, num_heads=num_heads, window_sizes=windows, pretrain_grid=grid
    )
    return Swin(config, **how)
