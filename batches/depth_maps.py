"""From cached points to the depth target of a training batch."""

import numpy as np


def nearest_depths(
    u: np.ndarray, v: np.ndarray, depth: np.ndarray, post_homography: np.ndarray, size: tuple[int, int], stride: int
) -> np.ndarray:
    """Depth of the nearest point in each stride x stride cell of the augmented image.

    What a map of the image's size has as the smallest depth of each cell, without the map.

    Args:
        u, v: (N,) px of the full image; depth: (N,) m, all positive.
        post_homography: (4, 4), a pixel (u, v, depth, 1) of the full image to the augmented one's, as in images.py.
        size: (height, width) of the augmented image, multiples of `stride`. Raises ValueError else.

    Returns:
        (height / stride, width / stride) float32, 0 where no point falls. Pixel = floor.
    """
    height, width = size
    if height % stride or width % stride:
        raise ValueError(f"an image of {height}x{width} does not divide into cells of {stride}")
    (xx, xy, _, x0), (yx, yy, _, y0), *_ = np.asarray(post_homography, np.float64)
    column = np.floor(xx * u + xy * v + x0)
    row = np.floor(yx * u + yy * v + y0)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = row[inside].astype(np.int64) // stride, column[inside].astype(np.int64) // stride
    rows, columns = height // stride, width // stride
    nearest = np.full(rows * columns, np.inf, np.float32)
    np.minimum.at(nearest, row * columns + column, np.asarray(depth, np.float32)[inside])
    nearest[np.isinf(nearest)] = 0.0
    return nearest.reshape(rows, columns)
