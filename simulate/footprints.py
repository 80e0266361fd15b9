"""Whether rectangles on the ground touch: what keeps everything in the town apart."""

import numpy as np

from models.geometry import rotation_z


def overlap(xy, yaw, half, other_xy, other_yaw, other_half) -> np.ndarray:
    """(N,) whether a rectangle touches each of N others at any of T times (separating axes).

    xy (T, 2), yaw (T,), half (2,) against other_xy (N, T, 2), other_yaw (N, T), other_half (N, 2).
    """
    a = np.swapaxes(rotation_z(yaw)[..., :2, :2], -1, -2)[None]  # rows are the axes (1, T, 2, 2)
    b = np.swapaxes(rotation_z(other_yaw)[..., :2, :2], -1, -2)  # (N, T, 2, 2)
    between = other_xy - xy[None]
    dots = np.abs(a @ np.swapaxes(b, -1, -2))  # (N, T, 2, 2) |a_i . b_j|
    apart = np.zeros(between.shape[:2], bool)
    for axes, reach in (
        (a, half + np.einsum("ntij,nj->nti", dots, other_half)),
        (b, other_half[:, None] + np.einsum("ntij,i->ntj", dots, half)),
    ):
        apart |= (np.abs(np.einsum("ntij,ntj->nti", np.broadcast_to(axes, dots.shape), between)) > reach).any(-1)
    return (~apart).any(1)
