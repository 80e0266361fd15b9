"""From cached points to the depth target of a training batch."""

import numpy as np

from common.kernels import kernel
from storage.depth import CameraPoints


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
        (height / stride, width / stride) float32, 0 where no point falls. Pixel = floor, in the numbers that u and v
        are in: float32 of a cache.
    """
    return _nearest(u, v, depth, np.zeros(len(u), np.uint8), 0, post_homography, size, stride)


def depth_target(
    points: CameraPoints, sweeps: int, post_homography: np.ndarray, size: tuple[int, int], stride: int
) -> np.ndarray:
    """`nearest_depths` of a camera's cached points of the key sweep and up to `sweeps` before it."""
    return _nearest(*points, sweeps, post_homography, size, stride)


def _nearest(
    u: np.ndarray,
    v: np.ndarray,
    depth: np.ndarray,
    sweep: np.ndarray,
    sweeps: int,
    post_homography: np.ndarray,
    size: tuple[int, int],
    stride: int,
) -> np.ndarray:
    height, width = size
    if height % stride or width % stride:
        raise ValueError(f"an image of {height}x{width} does not divide into cells of {stride}")
    numbers = u.dtype if u.dtype.kind == "f" else np.float64
    (xx, xy, _, x0), (yx, yy, _, y0), *_ = np.asarray(post_homography, numbers)
    rows, columns = height // stride, width // stride
    nearest = np.full(rows * columns + 1, np.inf, np.float32)  # the last is of points that fall outside
    row_of = np.repeat(np.arange(rows, dtype=np.int32) * columns, stride)  # of a pixel, the first cell of its row
    column_of = np.repeat(np.arange(columns, dtype=np.int32), stride)
    depth = np.asarray(depth, np.float32)
    _lower(nearest, u, v, depth, sweep, sweeps, (xx, xy, x0, yx, yy, y0), row_of, column_of)
    nearest[np.isinf(nearest)] = 0.0
    return nearest[:-1].reshape(rows, columns)


@kernel
def _lower(
    nearest: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    depth: np.ndarray,
    sweep: np.ndarray,
    sweeps: int,
    matrix: tuple[float, float, float, float, float, float],
    row_of: np.ndarray,
    column_of: np.ndarray,
) -> None:
    """Lower each cell to its nearest point. Which point falls where is no pattern: nothing here branches on it."""
    xx, xy, x0, yx, yy, y0 = matrix
    height, width, outside = len(row_of), len(column_of), len(nearest) - 1
    for i in range(len(u)):
        x = xx * u[i] + xy * v[i] + x0
        y = yx * u[i] + yy * v[i] + y0
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (sweep[i] <= sweeps)
        row = np.uintp(y if inside else 0)
        column = np.uintp(x if inside else 0)
        cell = np.uintp(row_of[row] + column_of[column] if inside else outside)
        nearest[cell] = min(nearest[cell], depth[i])
