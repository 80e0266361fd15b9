"""Occupancy of one key frame in Occ3D's layout, from the world's own geometry instead of accumulated sweeps.

A voxel is a solid's where one of LINES x LINES vertical lines through it meets the solid within it, so that thin things
count; objects go before the town, and both before the ground. What cameras saw follows Occ3D: rays from a camera to
every voxel of a surface and of the grid's shell see all voxels up to the first one that is not free. What the LiDAR saw
are the voxels that its beams passed. Numba's cache notices changes in this file alone: after changing a constant that
is imported here, remove `__pycache__`.
"""

import io
from typing import NamedTuple

import numpy as np
from numba import njit

from models.geometry import inverse
from models.names import FREE
from models.occupancy import LOW, SHAPE, VOXEL
from simulate.solids import Solids
from simulate.town import CELL, TERRAIN, Ground

LINES = 4  # vertical lines through a voxel, along each side


class Eye(NamedTuple):
    """A camera: its pose in the key ego frame and its image."""

    camera_to_ego: np.ndarray  # (4, 4)
    intrinsics: np.ndarray  # (3, 3)
    size: np.ndarray  # (2,) width, height


def voxel_labels(solids: Solids, ego_to_global: np.ndarray, ground: Ground) -> np.ndarray:
    """Labels (SHAPE) uint8, positions in names.OCCUPANCY_CLASSES, of global solids on the painted ground."""
    to_ego = inverse(ego_to_global)
    local = solids.moved(to_ego[:3, :3], to_ego[:3, 3])
    corners = local.corners()
    fine = VOXEL / LINES
    # Lines stand at the middles of the fine cells.
    low = np.ceil((corners.min(1)[:, :2] - LOW[:2]) / fine - 0.5)
    high = np.floor((corners.max(1)[:, :2] - LOW[:2]) / fine - 0.5) + 1
    windows = np.concatenate([low, high], 1).clip(0, SHAPE[0] * LINES).astype(np.int64)
    labels = np.full(SHAPE, FREE, np.uint8)
    _lay_ground(labels, ego_to_global, ground.label)
    _fill(labels, local.planes, solids.offsets, solids.label, windows)
    return labels


def camera_mask(labels: np.ndarray, cameras: list[Eye]) -> np.ndarray:
    """(SHAPE) uint8, 1 where a voxel is in view of at least one camera."""
    visible = np.zeros(SHAPE, np.uint8)
    targets = _targets(labels)
    for camera in cameras:
        _look(labels, visible, targets, inverse(camera.camera_to_ego), camera.camera_to_ego[:3, 3], *camera[1:])
    return visible


def lidar_mask(origin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(SHAPE) uint8, 1 where a beam passed or ended. origin (3,) and points (N, 3) in the key ego frame."""
    visible = np.zeros(SHAPE, np.uint8)
    _pass(visible, (origin - LOW) / VOXEL, (points - LOW) / VOXEL)
    return visible


def labels_file(labels: np.ndarray, camera_mask: np.ndarray, lidar_mask: np.ndarray) -> bytes:
    """The content of an Occ3D `labels.npz`."""
    file = io.BytesIO()
    np.savez_compressed(file, semantics=labels, mask_lidar=lidar_mask, mask_camera=camera_mask)
    return file.getvalue()


@njit(cache=True)
def _lay_ground(labels, ego_to_global, ground):
    m = ego_to_global
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            x, y = LOW[0] + (i + 0.5) * VOXEL, LOW[1] + (j + 0.5) * VOXEL
            z = -(m[2, 0] * x + m[2, 1] * y + m[2, 3]) / m[2, 2]
            k = int(np.floor((z - LOW[2]) / VOXEL))
            if not 0 <= k < labels.shape[2]:
                continue
            column = int(np.floor((m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / CELL))
            row = int(np.floor((m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / CELL))
            inside = 0 <= row < ground.shape[0] and 0 <= column < ground.shape[1]
            labels[i, j, k] = ground[row, column] if inside else TERRAIN


@njit(cache=True)
def _fill(labels, planes, offsets, solid_labels, windows):
    step = VOXEL / LINES
    top = LOW[2] + labels.shape[2] * VOXEL
    for p in range(len(offsets) - 1):
        for i in range(windows[p, 0], windows[p, 2]):
            x = LOW[0] + (i + 0.5) * step
            for j in range(windows[p, 1], windows[p, 3]):
                y = LOW[1] + (j + 0.5) * step
                low, high = LOW[2], top
                for f in range(offsets[p], offsets[p + 1]):
                    room = planes[f, 3] - planes[f, 0] * x - planes[f, 1] * y
                    rise = planes[f, 2]
                    if rise > 0:
                        high = min(high, room / rise)
                    elif rise < 0:
                        low = max(low, room / rise)
                    elif room < 0:
                        high = low
                    if high <= low:
                        break
                if high <= low:
                    continue
                first, last = int((low - LOW[2]) / VOXEL), int(np.ceil((high - LOW[2]) / VOXEL))
                for k in range(first, last):
                    labels[i // LINES, j // LINES, k] = solid_labels[p]


@njit(cache=True)
def _targets(labels):
    """Voxels that rays go to: occupied ones with a free neighbour, and those on the grid's shell."""
    nx, ny, nz = labels.shape
    out = np.zeros(labels.shape, np.bool_)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if i == 0 or j == 0 or k == 0 or i == nx - 1 or j == ny - 1 or k == nz - 1:
                    out[i, j, k] = True
                elif labels[i, j, k] != FREE:
                    out[i, j, k] = (
                        labels[i - 1, j, k] == FREE
                        or labels[i + 1, j, k] == FREE
                        or labels[i, j - 1, k] == FREE
                        or labels[i, j + 1, k] == FREE
                        or labels[i, j, k - 1] == FREE
                        or labels[i, j, k + 1] == FREE
                    )
    return out


@njit(cache=True)
def _look(labels, visible, targets, to_camera, position, intrinsics, size):
    m = to_camera
    x0, y0, z0 = (position[0] - LOW[0]) / VOXEL, (position[1] - LOW[1]) / VOXEL, (position[2] - LOW[2]) / VOXEL
    for i in range(labels.shape[0]):
        x = LOW[0] + (i + 0.5) * VOXEL
        for j in range(labels.shape[1]):
            y = LOW[1] + (j + 0.5) * VOXEL
            for k in range(labels.shape[2]):
                if not targets[i, j, k]:
                    continue
                z = LOW[2] + (k + 0.5) * VOXEL
                depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                if depth <= 0:
                    continue
                across = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / depth
                down = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / depth
                u, v = intrinsics[0, 0] * across + intrinsics[0, 2], intrinsics[1, 1] * down + intrinsics[1, 2]
                if 0 <= u < size[0] and 0 <= v < size[1]:
                    _walk(labels, visible, x0, y0, z0, i + 0.5, j + 0.5, k + 0.5, True)


@njit(cache=True)
def _pass(visible, origin, points):
    for n in range(len(points)):
        _walk(visible, visible, origin[0], origin[1], origin[2], points[n, 0], points[n, 1], points[n, 2], False)


@njit(cache=True)
def _walk(labels, visible, x0, y0, z0, x1, y1, z1, stop):
    """Marks the voxels along a line in voxel units, from one to the next (Amanatides and Woo, 1987).

    It begins in the grid, and ends with the line, with the grid, or (`stop`) in the first voxel that is not free.
    """
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    i, j, k = int(np.floor(x0)), int(np.floor(y0)), int(np.floor(z0))
    si, sj, sk = 1 if dx > 0 else -1, 1 if dy > 0 else -1, 1 if dz > 0 else -1
    # Share of the line at which it enters the next voxel along each axis, and the share of one voxel.
    ti = ((i + (dx > 0)) - x0) / dx if dx != 0 else np.inf
    tj = ((j + (dy > 0)) - y0) / dy if dy != 0 else np.inf
    tk = ((k + (dz > 0)) - z0) / dz if dz != 0 else np.inf
    ei = abs(1 / dx) if dx != 0 else np.inf
    ej = abs(1 / dy) if dy != 0 else np.inf
    ek = abs(1 / dz) if dz != 0 else np.inf
    nx, ny, nz = labels.shape
    while 0 <= i < nx and 0 <= j < ny and 0 <= k < nz:
        visible[i, j, k] = 1
        if stop and labels[i, j, k] != FREE:
            return
        if min(ti, tj, tk) > 1.0:
            return
        if ti <= tj and ti <= tk:
            i, ti = i + si, ti + ei
        elif tj <= tk:
            j, tj = j + sj, tj + ej
        else:
            k, tk = k + sk, tk + ek
