"""The two layouts of a bird's-eye-view map, and the one function between them.

The project's maps are `[..., C, X, Y]`: dim -2 grows with x, dim -1 with y. The BEVDet family and mmdet3d's heads keep
image order, `[..., C, Y, X]`.
"""

from torch import Tensor


def swap_xy(bev: Tensor) -> Tensor:
    """`[..., X, Y]` <-> `[..., Y, X]`, contiguous (convolutions are slow on transposed memory). Its own inverse."""
    return bev.transpose(-1, -2).contiguous()
