"""Rigid transforms, quaternions and pinhole projection, in float64 NumPy.

A transform is a 4x4 matrix named `a_to_b`, applied `p_b = a_to_b @ p_a`; a chain reads right to left:
`lidar_to_camera = ego_to_camera @ global_to_ego @ ego_to_global @ lidar_to_ego`. Quaternions are (w, x, y, z).
All functions broadcast over leading dimensions.
"""

import numpy as np


def quaternion_to_rotation(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4), wxyz."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def rotation_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), wxyz with w >= 0, of rotation matrices (..., 3, 3)."""
    r = np.asarray(rotation, np.float64)
    m00, m11, m22 = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    squares = np.stack([1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22], -1)
    a, b, c = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    d, e, f = r[..., 1, 0] + r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 2, 1] + r[..., 1, 2]
    # Four times the outer product q q^T: the row with the largest diagonal is the well-conditioned one.
    w2, x2, y2, z2 = np.moveaxis(squares, -1, 0)
    outer = np.stack(
        [np.stack(row, -1) for row in ([w2, a, b, c], [a, x2, d, e], [b, d, y2, f], [c, e, f, z2])],
        -2,
    )
    best = np.argmax(squares, -1)
    q = np.take_along_axis(outer, best[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def transform(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Transforms (..., 4, 4) of a quaternion (..., 4) wxyz or a rotation (..., 3, 3), and a translation (..., 3)."""
    rotation, translation = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    if rotation.shape[-1] == 4:
        rotation = quaternion_to_rotation(rotation)
    shape = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    out = np.zeros((*shape, 4, 4))
    out[..., :3, :3] = rotation
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def inverse(a_to_b: np.ndarray) -> np.ndarray:
    """`b_to_a` of a rigid transform (..., 4, 4): the transpose, exact where a general inverse rounds."""
    back = np.swapaxes(a_to_b[..., :3, :3], -1, -2)
    return transform(back, -(back @ a_to_b[..., :3, 3:])[..., 0])


def apply(a_to_b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., N, 3) of frame a, in frame b."""
    return points @ np.swapaxes(a_to_b[..., :3, :3], -1, -2) + a_to_b[..., None, :3, 3]


def rotation_z(yaw: np.ndarray | float) -> np.ndarray:
    """Rotations (..., 3, 3) about z, counter-clockwise seen from above (rad)."""
    c, s = np.cos(yaw), np.sin(yaw)
    zero, one = np.zeros_like(c), np.ones_like(c)
    return np.stack([np.stack(r, -1) for r in ([c, -s, zero], [s, c, zero], [zero, zero, one])], -2)


def heading(vectors: np.ndarray) -> np.ndarray:
    """Angles (...) of vectors (..., >=2) in the plane of x and y, rad, counter-clockwise from +x.

    Of copies: where a strided view and the result happen to be neighbours in memory, NumPy takes another kernel, whose
    last bits are others. The same vectors would have two headings, by what else a process has allocated.
    """
    return np.arctan2(vectors[..., 1].copy(), vectors[..., 0].copy())


def yaw_of(a_to_b: np.ndarray) -> np.ndarray:
    """Heading in frame b (rad, counter-clockwise from +x) of frame a's x axis; of rotations (..., 3, 3) too."""
    return heading(a_to_b[..., 0])


def project(points: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) and depths (N,) of points (N, 3) in a camera's frame (x right, y down, z forward, m).

    Pixel coordinates are continuous as in the devkit: u = fx x / z + cx. Points at z <= 0 give meaningless pixels:
    select by depth first or afterwards.
    """
    depth = points[:, 2]
    uvw = points @ intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return uvw[:, :2] / depth[:, None], depth
