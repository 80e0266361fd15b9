"""What rays meet: exact casts of cameras, LiDAR and sunbeams against the solids and the ground.

Solids are cast one after another into a depth buffer, each only within the window of the image (or sweep) that its
bounds cover. Loops are Numba's, over plain arrays; the tests compare them with a direct reference. Numba's cache
notices changes in this file alone: after changing a constant that is imported here, remove `__pycache__`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.geometry import inverse
from simulate.solids import Solids
from simulate.town import CELL, Ground

SAMPLES = 2  # rays along each side of a pixel
SKY, GROUND = -2, -1  # in place of a solid's number
NEAR = 0.05  # m before a camera
SHADOW_CELL = 0.2  # m
MAX_RANGE = 100.0  # m that the LiDAR measures at most
_EDGES = [(a, a | 1 << axis) for a in range(8) for axis in range(3) if not a >> axis & 1]  # of a box, by corner number


class View(NamedTuple):
    """What a camera's rays meet, (SAMPLES * height, SAMPLES * width) each, and how much of each object is in view."""

    depth: np.ndarray  # float32 m along the optical axis, inf for the sky
    solid: np.ndarray  # int32 number of the solid, or GROUND or SKY
    face: np.ndarray  # int32 row of Solids.planes
    alone: np.ndarray  # (objects,) rays that would meet the object if nothing stood in front of it
    visible: np.ndarray  # (objects,) rays that meet it


def cast_camera(
    solids: Solids, camera_to_global: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], objects: int
) -> View:
    """Depth buffer of a camera; size is (width, height), objects the number of owners."""
    x = ((np.arange(size[0] * SAMPLES) + 0.5) / SAMPLES - intrinsics[0, 2]) / intrinsics[0, 0]
    y = ((np.arange(size[1] * SAMPLES) + 0.5) / SAMPLES - intrinsics[1, 2]) / intrinsics[1, 1]
    to_camera = inverse(camera_to_global)
    local = solids.moved(to_camera[:3, :3], to_camera[:3, 3])
    windows, nearest = _camera_windows(local.corners(), x, y)
    order = _order(nearest, solids.owner, windows)
    down = -camera_to_global[2, :3]  # the ground's outward normal is up: rays that go down meet it
    return View(
        *_cast_camera(
            local.planes, solids.offsets, solids.owner, windows, nearest, order, x, y,
            down, camera_to_global[2, 3], objects,
        )
    )  # fmt: skip


def cast_lidar(
    solids: Solids,
    lidar_to_global: np.ndarray,
    directions: np.ndarray,
    ground: Ground,
    noise: np.ndarray,
    reach: float = MAX_RANGE,
) -> np.ndarray:
    """Points (N, 5) float32 of one sweep: x, y, z in the LiDAR's frame, intensity 0..255, ring.

    All beams are cast at one instant, the sweep's stamp (a real sweep takes 50 ms). Beams without a return leave no
    row, so a file is shorter than a real one, which keeps such rows with coordinates near zero. `noise` (A, R, 2) is
    the range error in m and a factor on the intensity, one a beam. What is farther than `reach` (m) returns nothing.
    """
    to_lidar = inverse(lidar_to_global)
    local = solids.moved(to_lidar[:3, :3], to_lidar[:3, 3])
    windows, nearest = _lidar_windows(local, directions)
    order = _order(nearest, solids.owner, windows)
    distance, solid, face = _cast_lidar(
        local.planes,
        solids.offsets,
        windows,
        nearest,
        order,
        directions,
        -lidar_to_global[2, :3],
        lidar_to_global[2, 3],
    )
    return _returns(
        distance, solid, face, local.planes, solids.reflectance, directions, noise, lidar_to_global, ground.reflectance,
        reach,
    )  # fmt: skip


def cast_shadows(solids: Solids, sun: np.ndarray, shadows: np.ndarray) -> None:
    """Adds the solids' shadows to a map (rows, columns) of the ground, SHADOW_CELL m a cell.

    A cell stands for the sunbeam that would reach the ground there, and holds the height (m) up to which that beam is
    cut off: a point is in shadow if it lies lower than the value of its beam's cell.
    """
    corners = solids.corners()
    foot = corners[..., :2] - corners[..., 2:] * (sun[:2] / sun[2])
    low, high = foot.min(1) / SHADOW_CELL, foot.max(1) / SHADOW_CELL
    limits = np.array(shadows.shape[::-1])
    windows = np.concatenate([np.floor(low), np.ceil(high) + 1], 1).clip(0, [*limits, *limits]).astype(np.int64)
    _cast_shadows(solids.planes, solids.offsets, windows, sun, shadows)


def _order(nearest, owner, windows) -> np.ndarray:
    """Solids with a window, near objects first, the solids of one object together."""
    visible = (windows[:, 1] > windows[:, 0]) & (windows[:, 3] > windows[:, 2])
    first = nearest.copy()
    for_owner = np.full(owner.max(initial=-1) + 1, np.inf)
    owned = owner >= 0
    np.minimum.at(for_owner, owner[owned], nearest[owned])
    first[owned] = for_owner[owner[owned]]
    order = np.lexsort((nearest, owner, first))
    return order[visible[order]]


def _camera_windows(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows [from, to) (P, 4) that boxes with these corners (P, 8, 3) can cover, and their least depth."""
    start, end = corners[:, [a for a, _ in _EDGES]], corners[:, [b for _, b in _EDGES]]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (NEAR - start[..., 2]) / (end[..., 2] - start[..., 2])
    crosses = (part > 0) & (part < 1)
    cut = start + np.where(crosses, part, 0.0)[..., None] * (end - start)
    points = np.concatenate([corners, cut], 1)
    valid = np.concatenate([corners[..., 2] >= NEAR, crosses], 1)
    depth = np.where(valid, np.maximum(points[..., 2], NEAR), 1.0)
    windows = np.zeros((len(corners), 4), np.int64)
    for k, grid in enumerate((x, y)):
        ratio = points[..., k] / depth
        low, high = np.where(valid, ratio, np.inf).min(1), np.where(valid, ratio, -np.inf).max(1)
        windows[:, 2 * k] = np.searchsorted(grid, low - 1e-9)
        windows[:, 2 * k + 1] = np.searchsorted(grid, high + 1e-9, side="right")
    return windows, np.where(valid, points[..., 2], np.inf).min(1)


def _lidar_windows(local: Solids, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth steps [from, from + n) and rings [from, to) as (P, 4): from, from + n, ring, ring; least distance."""
    steps = len(directions)
    corners = local.corners()
    center = local.center
    reach = np.linalg.norm(local.half, axis=1)
    flat = np.hypot(corners[..., 0] - center[:, None, 0], corners[..., 1] - center[:, None, 1]).max(1)
    distance = np.hypot(center[:, 0], center[:, 1])
    near, far = np.maximum(distance - flat, 1e-3), distance + flat
    middle = np.arctan2(center[:, 0], center[:, 1])
    azimuth = np.arctan2(corners[..., 0], corners[..., 1]) - middle[:, None]
    azimuth = (azimuth + np.pi) % (2 * np.pi) - np.pi
    first = np.arctan2(directions[0, 0, 0], directions[0, 0, 1])
    start = (middle + azimuth.min(1) - first) % (2 * np.pi) / (2 * np.pi) * steps
    windows = np.zeros((len(center), 4), np.int64)
    windows[:, 0] = np.floor(start)
    windows[:, 1] = np.ceil(start + np.ptp(azimuth, axis=1) / (2 * np.pi) * steps) + 1
    # A window much over half the circle means that the bounds surround the LiDAR's axis: take all of it.
    windows[np.ptp(azimuth, axis=1) > 3.2] = 0, steps, 0, 0
    low, high = corners[..., 2].min(1), corners[..., 2].max(1)
    rings = np.arcsin(directions[0, :, 2])
    windows[:, 2] = np.searchsorted(rings, np.arctan2(low, np.where(low > 0, far, near)) - 1e-9)
    windows[:, 3] = np.searchsorted(rings, np.arctan2(high, np.where(high > 0, near, far)) + 1e-9)
    return windows, np.maximum(np.linalg.norm(center, axis=1) - reach, 0.0)


@njit(cache=True)
def _cast_camera(planes, offsets, owner, windows, nearest, order, x, y, down, height, objects):
    shape = (len(y), len(x))
    depth = np.full(shape, np.inf, np.float32)
    solid = np.full(shape, SKY, np.int32)
    face = np.full(shape, -1, np.int32)
    last = np.full(shape, -1, np.int32)  # the object that counted this ray last
    alone, visible = np.zeros(objects, np.int64), np.zeros(objects, np.int64)
    for row in range(len(y)):
        for column in range(len(x)):
            fall = down[0] * x[column] + down[1] * y[row] + down[2]
            if fall > 1e-6:
                depth[row, column] = height / fall
                solid[row, column] = GROUND
    for p in order:
        a, b, owned = offsets[p], offsets[p + 1], owner[p]
        for row in range(windows[p, 2], windows[p, 3]):
            for column in range(windows[p, 0], windows[p, 1]):
                if owned < 0 and nearest[p] > depth[row, column]:
                    continue
                enter, leave, hit = 0.0, np.inf, -1
                for k in range(a, b):
                    slope = planes[k, 0] * x[column] + planes[k, 1] * y[row] + planes[k, 2]
                    if slope < 0:
                        t = planes[k, 3] / slope
                        if t > enter:
                            enter, hit = t, k
                            if enter > leave:
                                break
                    elif slope > 0:
                        t = planes[k, 3] / slope
                        if t < leave:
                            leave = t
                            if enter > leave:
                                break
                    elif planes[k, 3] < 0:
                        leave = -1.0
                        break
                if hit < 0 or enter > leave or enter < NEAR:
                    continue
                if owned >= 0 and last[row, column] != owned:
                    last[row, column] = owned
                    alone[owned] += 1
                if enter < depth[row, column]:
                    depth[row, column] = enter
                    solid[row, column] = p
                    face[row, column] = hit
    for row in range(len(y)):
        for column in range(len(x)):
            p = solid[row, column]
            if p >= 0 and owner[p] >= 0:
                visible[owner[p]] += 1
    return depth, solid, face, alone, visible


@njit(cache=True)
def _cast_lidar(planes, offsets, windows, nearest, order, directions, down, height):
    steps, rings = directions.shape[:2]
    distance = np.full((steps, rings), np.inf)
    solid = np.full((steps, rings), SKY, np.int32)
    face = np.full((steps, rings), -1, np.int32)
    for i in range(steps):
        for j in range(rings):
            fall = down[0] * directions[i, j, 0] + down[1] * directions[i, j, 1] + down[2] * directions[i, j, 2]
            if fall > 1e-6:
                distance[i, j] = height / fall
                solid[i, j] = GROUND
    for p in order:
        for unwrapped in range(windows[p, 0], windows[p, 1]):
            i = unwrapped % steps
            for j in range(windows[p, 2], windows[p, 3]):
                if nearest[p] > distance[i, j]:
                    continue
                dx, dy, dz = directions[i, j, 0], directions[i, j, 1], directions[i, j, 2]
                enter, leave, hit = 0.0, np.inf, -1
                for k in range(offsets[p], offsets[p + 1]):
                    slope = planes[k, 0] * dx + planes[k, 1] * dy + planes[k, 2] * dz
                    if slope < 0:
                        t = planes[k, 3] / slope
                        if t > enter:
                            enter, hit = t, k
                    elif slope > 0:
                        leave = min(leave, planes[k, 3] / slope)
                    elif planes[k, 3] < 0:
                        leave = -1.0
                    if enter > leave:
                        break
                if hit >= 0 and enter <= leave and enter < distance[i, j]:
                    distance[i, j] = enter
                    solid[i, j] = p
                    face[i, j] = hit
    return distance, solid, face


@njit(cache=True)
def _returns(distance, solid, face, planes, reflectance, directions, noise, lidar_to_global, ground, reach):
    steps, rings = distance.shape
    out = np.empty((steps * rings, 5), np.float32)
    n = 0
    for i in range(steps):
        for j in range(rings):
            t = distance[i, j]
            if t > reach:
                continue
            dx, dy, dz = directions[i, j, 0], directions[i, j, 1], directions[i, j, 2]
            if solid[i, j] == GROUND:
                m = lidar_to_global
                facing = -(m[2, 0] * dx + m[2, 1] * dy + m[2, 2] * dz)
                column = int((m[0, 3] + t * (m[0, 0] * dx + m[0, 1] * dy + m[0, 2] * dz)) / CELL)
                row = int((m[1, 3] + t * (m[1, 0] * dx + m[1, 1] * dy + m[1, 2] * dz)) / CELL)
                inside = 0 <= row < ground.shape[0] and 0 <= column < ground.shape[1]
                back = float(ground[row, column]) if inside else 24.0
            else:
                k = face[i, j]
                facing = -(planes[k, 0] * dx + planes[k, 1] * dy + planes[k, 2] * dz)
                back = reflectance[solid[i, j]]
            if back * facing < 0.00018 * t * t:  # too faint: asphalt at a grazing angle beyond some 45 m
                continue
            t += noise[i, j, 0]
            out[n, 0], out[n, 1], out[n, 2] = t * dx, t * dy, t * dz
            out[n, 3] = np.floor(min(255.0, back * (0.35 + 0.65 * facing) * noise[i, j, 1]))
            out[n, 4] = j
            n += 1
    return out[:n].copy()


@njit(cache=True)
def _cast_shadows(planes, offsets, windows, sun, shadows):
    for p in range(len(offsets) - 1):
        for row in range(windows[p, 1], windows[p, 3]):
            for column in range(windows[p, 0], windows[p, 2]):
                ox, oy = (column + 0.5) * SHADOW_CELL, (row + 0.5) * SHADOW_CELL
                enter, leave = 0.0, np.inf
                for k in range(offsets[p], offsets[p + 1]):
                    slope = planes[k, 0] * sun[0] + planes[k, 1] * sun[1] + planes[k, 2] * sun[2]
                    room = planes[k, 3] - planes[k, 0] * ox - planes[k, 1] * oy
                    if slope < 0:
                        enter = max(enter, room / slope)
                    elif slope > 0:
                        leave = min(leave, room / slope)
                    elif room < 0:
                        leave = -1.0
                    if enter > leave:
                        break
                if enter <= leave:
                    shadows[row, column] = max(shadows[row, column], leave * sun[2])
