"""From cached points to the depth maps and depth targets of a training batch."""

from typing import Literal

import numpy as np


def depth_map(
    u: np.ndarray,
    v: np.ndarray,
    depth: np.ndarray,
    post_homography: np.ndarray,
    size: tuple[int, int],
    keep: Literal["nearest", "last"] = "nearest",
) -> np.ndarray:
    """Depth in each pixel of the augmented image.

    Args:
        u, v: (N,) px of the full image; depth: (N,) m, all positive.
        post_homography: (4, 4), a pixel (u, v, depth, 1) of the full image to the augmented one's, as in images.py.
        size: (height, width) of the augmented image.
        keep: which of several points in a pixel counts: the nearest, exactly (no rank in floating point), or the last
            in the order given, as in the original GeoMIM.

    Returns:
        (height, width) float32, 0 where no point falls. Pixel = floor.
    """
    height, width = size
    (xx, xy, _, x0), (yx, yy, _, y0), *_ = np.asarray(post_homography, np.float64)
    column = np.floor(xx * u + xy * v + x0)
    row = np.floor(yx * u + yy * v + y0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = (row[inside] * width + column[inside]).astype(np.int64)
    depth = np.asarray(depth, np.float32)[inside]
    if keep == "last":
        last = np.full(height * width, -1)
        np.maximum.at(last, cell, np.arange(len(cell)))  # (plain assignment promises no order)
        return np.append(depth, np.float32(0))[last].reshape(height, width)
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, cell, depth)
    nearest[np.isinf(nearest)] = 0.0
    return nearest.reshape(height, width)


def block_minimum(depths: np.ndarray, block: int) -> np.ndarray:
    """Nearest depth (..., H / block, W / block) in each block of maps (..., H, W).

    0, which says "no point", never wins over a point.
    Raises ValueError where the block does not divide the map.
    """
    *lead, height, width = depths.shape
    if height % block or width % block:
        raise ValueError(f"a {height}x{width} depth map does not divide into blocks of {block}")
    blocks = depths.reshape(*lead, height // block, block, width // block, block)
    nearest = np.where(blocks > 0, blocks, np.inf).min((-3, -1))
    return np.where(np.isinf(nearest), 0, nearest).astype(depths.dtype)
