"""The layouts of a bird's-eye-view map, and the functions between them.

The project's maps are `[..., C, X, Y]`: dim -2 grows with x, dim -1 with y. The BEVDet family and mmdet3d's heads keep
image order, `[..., C, Y, X]`. A map that is mostly zero travels as its cells: `index` (n,), x * Y + y, and `values`
(n, C).
"""

from typing import TypeVar

import numpy as np
from torch import Tensor

Index = TypeVar("Index", np.ndarray, Tensor)


def swap_xy(bev: Tensor) -> Tensor:
    """`[..., X, Y]` <-> `[..., Y, X]`, contiguous (convolutions are slow on transposed memory). Its own inverse."""
    return bev.transpose(-1, -2).contiguous()


def scatter_cells(index: Tensor, values: Tensor, batch: int, shape_CXY: tuple[int, int, int]) -> Tensor:
    """(B, C, X, Y), zero outside the cells. `index` (n,) int64, each once: (b * X + x) * Y + y in map b of B."""
    channels, x, y = shape_CXY
    bev = values.new_zeros(batch * x * y, channels).index_copy_(0, index, values)
    return bev.view(batch, x, y, channels).permute(0, 3, 1, 2).contiguous()


def flip_cells(index: Index, shape_XY: tuple[int, int], flip_x: bool, flip_y: bool) -> Index:
    """Where the cells lie in the map mirrored along x or y (or both); their values stay as they are."""
    x, y = index // shape_XY[1], index % shape_XY[1]
    x = shape_XY[0] - 1 - x if flip_x else x
    y = shape_XY[1] - 1 - y if flip_y else y
    return x * shape_XY[1] + y
