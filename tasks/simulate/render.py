"""What the sensors see of the solids and the ground: depth buffers of exact ray casts, shadows and shading.

Solids are cast one after another into a depth buffer, each only within the window of the image (or sweep) that its
bounds cover. A camera casts SAMPLES x SAMPLES rays a pixel; a pixel is shaded once for each different surface among
them. Loops are Numba's, over plain arrays; `tests/tasks/simulate` compares them with a direct reference.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.geometry import inverse
from tasks.simulate.solids import Solids
from tasks.simulate.town import ALBEDO_SCALE, CELL, Ground, hashed

SAMPLES = 2  # rays along each side of a pixel
SKY, GROUND = -2, -1  # in place of a solid's number
NEAR = 0.05  # m before a camera
SHADOW_CELL = 0.2  # m
MAX_RANGE = 100.0  # m that the LiDAR measures
_EDGES = [(a, a | 1 << axis) for a in range(8) for axis in range(3) if not a >> axis & 1]  # of a box, by corner number


class Light(NamedTuple):
    """The weather of a scene. Colours are linear RGB radiances; `sun` points at the sun."""

    sun: np.ndarray  # (3,) unit vector
    sun_colour: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    cloud: float  # 0 clear .. 1 overcast
    haze: float  # 1/m
    exposure: float


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
    solids: Solids, lidar_to_global: np.ndarray, directions: np.ndarray, ground: Ground, noise: np.ndarray
) -> np.ndarray:
    """Points (N, 5) float32 of one sweep: x, y, z in the LiDAR's frame, intensity 0..255, ring.

    All beams are cast at one instant, the sweep's stamp (a real sweep takes 50 ms). Beams without a return leave no
    row, so a file is shorter than a real one, which keeps such rows with coordinates near zero. `noise` (A, R, 2) is
    the range error in m and a factor on the intensity, one a beam.
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
        distance, solid, face, local.planes, solids.reflectance, directions, noise, lidar_to_global, ground.reflectance
    )


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


def shade(
    view: View, solids: Solids, camera_to_global: np.ndarray, intrinsics: np.ndarray, ground: Ground,
    shadows: np.ndarray, light: Light,
) -> np.ndarray:  # fmt: skip
    """The picture (height, width, 3) uint8 of what a camera's rays met."""
    levels = ground.colour
    return _shade(
        view.depth, view.solid, view.face, solids, camera_to_global, intrinsics, tuple(levels), ground.far, shadows, light,
        _SCREEN,
    )  # fmt: skip


def _order(nearest, owner, windows) -> np.ndarray:
    """Solids with a window, near objects first, the solids of one object together."""
    shown = (windows[:, 1] > windows[:, 0]) & (windows[:, 3] > windows[:, 2])
    first = nearest.copy()
    for_owner = np.full(owner.max(initial=-1) + 1, np.inf)
    owned = owner >= 0
    np.minimum.at(for_owner, owner[owned], nearest[owned])
    first[owned] = for_owner[owner[owned]]
    order = np.lexsort((nearest, owner, first))
    return order[shown[order]]


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
def _returns(distance, solid, face, planes, reflectance, directions, noise, lidar_to_global, ground):
    steps, rings = distance.shape
    out = np.empty((steps * rings, 5), np.float32)
    n = 0
    for i in range(steps):
        for j in range(rings):
            t = distance[i, j]
            if t > MAX_RANGE:
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


@njit(cache=True)
def _sunlit(px, py, pz, sun, shadows):
    """Share of sunlight (0..1) at a point, softened over four cells of the shadow map."""
    x = (px - pz * sun[0] / sun[2]) / SHADOW_CELL - 0.5
    y = (py - pz * sun[1] / sun[2]) / SHADOW_CELL - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    if row < 0 or column < 0 or row + 1 >= shadows.shape[0] or column + 1 >= shadows.shape[1]:
        return 1.0
    a, b = x - column, y - row
    lit = 0.0
    if shadows[row, column] < pz:
        lit += (1 - a) * (1 - b)
    if shadows[row, column + 1] < pz:
        lit += a * (1 - b)
    if shadows[row + 1, column] < pz:
        lit += (1 - a) * b
    if shadows[row + 1, column + 1] < pz:
        lit += a * b
    return lit


@njit(cache=True)
def _sky(dx, dy, dz, light, out):
    """Radiance of the sky along a unit direction."""
    up = max(dz, 0.0)
    rise = 1.0 - (1.0 - min(up * 1.6, 1.0)) ** 3
    glow = max(dx * light.sun[0] + dy * light.sun[1] + dz * light.sun[2], 0.0)
    glow = (0.25 * glow**6 + 0.8 * glow**60) * (1.0 - light.cloud)
    veil = 0.0
    if up > 0.02:  # two octaves of clouds on a plane overhead
        cx, cy = dx / (up + 0.12) * 1.7, dy / (up + 0.12) * 1.7
        veil = 0.65 * _clouds(cx, cy) + 0.35 * _clouds(2.3 * cx + 7, 2.3 * cy)
        veil = min(max((veil - 0.62 + 0.45 * light.cloud) * 3.0, 0.0), 1.0) * min(up * 6.0, 1.0)
    for c in range(3):
        clear = light.horizon[c] * (1 - rise) + light.zenith[c] * rise
        out[c] = (
            clear * (1 - 0.6 * veil) + 0.6 * veil * (light.horizon[c] * 0.6 + 0.35) + glow * light.sun_colour[c] * 0.5
        )
    # Wooded hills and far houses hide the horizon.
    turn = np.arctan2(dy, dx) * 4.0
    hills = 0.018 + 0.03 * _clouds(turn, 0.5) + 0.012 * _clouds(turn * 7.0, 3.5) + 0.004 * _clouds(turn * 40.0, 9.5)
    if dz < hills:
        veil = 0.55 + 0.25 * max(dz, 0.0) / hills
        for c in range(3):
            wood = (0.05, 0.075, 0.05)[c] * (light.ambient[c] + 0.3 * light.sun_colour[c])
            out[c] = wood * (1 - veil) + light.horizon[c] * veil


@njit(cache=True)
def _clouds(x, y):
    i, j = int(np.floor(x)), int(np.floor(y))
    a, b = x - i, y - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = hashed(i, j, 11) * (1 - a) + hashed(i + 1, j, 11) * a
    return low * (1 - b) + (hashed(i, j + 1, 11) * (1 - a) + hashed(i + 1, j + 1, 11) * a) * b


@njit(cache=True)
def _ground_albedo(px, py, level, levels, far, out):
    """Albedo of the painted ground, bilinear within one of its levels."""
    image = levels[level]
    scale = CELL * (1 << level)
    x, y = px / scale - 0.5, py / scale - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    if row < 0 or column < 0 or row + 1 >= image.shape[0] or column + 1 >= image.shape[1]:
        for c in range(3):
            out[c] = far[c]
        return
    a, b = x - column, y - row
    for c in range(3):
        low = image[row, column, c] * (1 - a) + image[row, column + 1, c] * a
        high = image[row + 1, column, c] * (1 - a) + image[row + 1, column + 1, c] * a
        out[c] = (low * (1 - b) + high * b) * ALBEDO_SCALE


@njit(cache=True)
def _albedo(p, k, px, py, pz, footprint, solids, out):
    """Albedo of solid p's face k at a global point, into out; returns how glossy the surface is (0..1).

    u runs along the face and v up, in -1..1 of the solid's half extents, or in metres (along, up) from its middle.
    Details finer than the pixel's footprint (m) fade into their mean.
    """
    r, center, half = solids.rotation[p], solids.center[p], solids.half[p]
    lx = r[0, 0] * (px - center[0]) + r[1, 0] * (py - center[1]) + r[2, 0] * (pz - center[2])
    ly = r[0, 1] * (px - center[0]) + r[1, 1] * (py - center[1]) + r[2, 1] * (pz - center[2])
    lz = r[0, 2] * (px - center[0]) + r[1, 2] * (py - center[1]) + r[2, 2] * (pz - center[2])
    n0, n1, n2 = solids.planes[k, 0], solids.planes[k, 1], solids.planes[k, 2]
    nx = abs(r[0, 0] * n0 + r[1, 0] * n1 + r[2, 0] * n2)
    ny = abs(r[0, 1] * n0 + r[1, 1] * n1 + r[2, 1] * n2)
    nz = r[0, 2] * n0 + r[1, 2] * n1 + r[2, 2] * n2
    is_top, is_end = abs(nz) > 0.8, nx > ny
    along, span = (ly, half[1]) if is_end else (lx, half[0])
    u, v, up = along / span, lz / half[2], lz + half[2]
    mix, gloss = 0.0, 0.0  # 1 is all accent
    pattern, p0, p1, p2 = solids.pattern[p], solids.params[p, 0], solids.params[p, 1], solids.params[p, 2]
    base, accent = solids.base[p], solids.accent[p]
    r0, r1, r2 = base[0], base[1], base[2]
    if pattern == 1:  # BODY: dark up to v = p0; lamps on both ends; ribs every p1 m
        gloss = 0.25
        if not is_top:
            if v < p0:
                mix = 1.0
            elif is_end and abs(u) > 0.62 and p0 + 0.25 < v < p0 + 1.0 and p1 == 0.0:
                if lx > 0:
                    r0, r1, r2 = 0.95, 0.93, 0.8
                else:
                    r0, r1, r2 = 0.55, 0.02, 0.02
            elif is_end and p1 > 0.0 and lx < 0 and v < p0 + 0.1 and abs(u) > 0.7:
                r0, r1, r2 = 0.5, 0.02, 0.02
            elif p1 > 0.0 and footprint < 0.12 and (along % p1) < 0.06:
                mix = 0.8
            elif not is_end and p1 == 0.0 and footprint < 0.05 and abs(abs(u) - 0.05) < 0.006:
                mix = 0.6  # door seam
    elif pattern == 2:  # GLAZING: glass between v = p0 and p1, pillars at the ends and every p2 m
        gloss = 0.25
        if not is_top and p0 < v < p1 and abs(u) < 0.93:
            pillar = abs(u) < 0.05 and p2 == 0.0 and not is_end
            pillar = pillar or (p2 > 0.0 and not is_end and (along + span) % p2 < 0.1)
            if not pillar:
                mix, gloss = 1.0, 0.75
    elif pattern == 3:  # FACADE: windows p0 m apart in storeys of p1 m, p2 wide relative to their spacing
        if not is_top:
            storey, bay = up / p1, (along + span) / p0
            a, b = bay - np.floor(bay), storey - np.floor(storey)
            ground_floor = storey < 1.0
            wide = 0.86 if ground_floor else p2
            tall_from, tall_to = (0.08, 0.8) if ground_floor else (0.28, 0.82)
            fade = min(max((footprint - 0.35) / 0.8, 0.0), 1.0)
            mean = wide * (tall_to - tall_from)
            inside = abs(a - 0.5) < wide / 2 and tall_from < b < tall_to and abs(u) < 0.985
            if inside and fade < 1.0:
                blind = hashed(int(bay) + 31 * k, int(storey), 5)
                if blind > 0.8 and not ground_floor:
                    r0, r1, r2 = 0.45, 0.42, 0.36
                else:
                    mix, gloss = 1.0 - 0.5 * fade, 0.7 * (1 - fade)
            elif fade > 0.0:
                mix = mean * fade
            else:  # courses between the storeys
                edge = 0.86 if b > 0.93 else 0.94 + 0.1 * hashed(int(up * 4), int((along + span) * 2), k)
                r0, r1, r2 = r0 * edge, r1 * edge, r2 * edge
    elif pattern == 4:  # STRIPES: slanted, p0 m apart
        if p0 < 2.0 or abs(v) < 0.35:
            mix = 1.0 if (along + lz) % (p0 if p0 < 2.0 else 0.6) < (0.5 * p0 if p0 < 2.0 else 0.3) else 0.0
            if footprint > 0.25:
                mix = 0.5
            if p0 > 2.0:
                mix *= 0.5
    elif pattern == 5:  # BANDS: accent between v = p0 and p1
        mix = 1.0 if p0 < v < p1 else 0.0
    elif pattern == 6:  # LEAVES: blotches of p0 m
        speck = hashed(int(np.floor(px / p0)), int(np.floor(py / p0)) + 57 * int(np.floor(pz / p0)), 3)
        fine = hashed(int(np.floor(px / 0.11)), int(np.floor(py / 0.11)) + 57 * int(np.floor(pz / 0.11)), 4)
        mix = 0.7 * speck + (0.45 * fine if footprint < 0.2 else 0.22)
    elif pattern == 7:  # WHEEL: a hub within p0 of the radius
        mix = 1.0 if (lx / half[0]) ** 2 + v**2 < p0**2 and not is_end and not is_top else 0.0
    out[0] = r0 * (1 - mix) + accent[0] * mix
    out[1] = r1 * (1 - mix) + accent[1] * mix
    out[2] = r2 * (1 - mix) + accent[2] * mix
    return gloss


@njit(cache=True)
def _shade(depth, solid, face, solids, to_global, intrinsics, levels, far, shadows, light, screen):
    height, width = depth.shape[0] // SAMPLES, depth.shape[1] // SAMPLES
    out = np.empty((height, width, 3), np.uint8)
    rays = SAMPLES * SAMPLES
    colour, sky, total = np.empty(3), np.empty(3), np.empty(3)
    members = np.empty(rays, np.int64)
    m = to_global
    for row in range(height):
        for column in range(width):
            total[:] = 0.0
            for q in range(rays):
                members[q] = 0
            for q in range(rays):
                if members[q]:
                    continue
                y, x = row * SAMPLES + q // SAMPLES, column * SAMPLES + q % SAMPLES
                p, k = solid[y, x], face[y, x]
                # All rays that met this face count as one, at their mean position.
                count, u, v, z = 0, 0.0, 0.0, 0.0
                for other in range(q, rays):
                    yy, xx = row * SAMPLES + other // SAMPLES, column * SAMPLES + other % SAMPLES
                    if solid[yy, xx] == p and face[yy, xx] == k:
                        members[other] = 1
                        count += 1
                        u += (xx + 0.5) / SAMPLES
                        v += (yy + 0.5) / SAMPLES
                        z += depth[yy, xx]
                u = (u / count - intrinsics[0, 2]) / intrinsics[0, 0]
                v = (v / count - intrinsics[1, 2]) / intrinsics[1, 1]
                length = np.sqrt(u * u + v * v + 1)
                dx = (m[0, 0] * u + m[0, 1] * v + m[0, 2]) / length
                dy = (m[1, 0] * u + m[1, 1] * v + m[1, 2]) / length
                dz = (m[2, 0] * u + m[2, 1] * v + m[2, 2]) / length
                if p == SKY:
                    _sky(dx, dy, dz, light, colour)
                else:
                    t = z / count * length
                    px, py, pz = m[0, 3] + t * dx, m[1, 3] + t * dy, m[2, 3] + t * dz
                    footprint = t / intrinsics[0, 0]
                    gloss = 0.0
                    if p == GROUND:
                        nx, ny, nz = 0.0, 0.0, 1.0
                        # A pixel is stretched on the ground by the grazing angle: a level between both extents.
                        extent = footprint * np.sqrt(1.0 / max(-dz, 0.01))
                        level = int(min(max(np.log2(extent / CELL) + 0.5, 0.0), len(levels) - 1.0))
                        _ground_albedo(px, py, level, levels, far, colour)
                    else:
                        nx, ny, nz = solids.planes[k, 0], solids.planes[k, 1], solids.planes[k, 2]
                        gloss = _albedo(p, k, px, py, pz, footprint, solids, colour)
                    facing = nx * light.sun[0] + ny * light.sun[1] + nz * light.sun[2]
                    direct = 0.0
                    if facing > 0.0:
                        lift = 0.0 if p == GROUND else 0.22
                        direct = facing * _sunlit(
                            px + lift * nx, py + lift * ny, pz + lift * nz + 0.02 + 0.3 * lift, light.sun, shadows
                        )
                    # The sky's share falls on what faces up; near the ground part of it is hidden.
                    open_sky = (0.62 + 0.38 * nz) * (1.0 if p == GROUND else 0.7 + 0.3 * min(1.0, pz))
                    if gloss > 0.0:
                        mirror = dx * nx + dy * ny + dz * nz
                        rise = dz - 2 * mirror * nz
                        fresnel = gloss * (0.06 + 0.5 * (1 - min(1.0, -mirror)) ** 3)
                        if gloss > 0.5:
                            fresnel += 0.1
                    else:
                        rise, fresnel = 0.0, 0.0
                    haze = 1.0 - np.exp(-t * light.haze)
                    for c in range(3):
                        lit = colour[c] * (direct * light.sun_colour[c] + open_sky * light.ambient[c])
                        if fresnel > 0.0:
                            seen = light.horizon[c] * (0.45 if rise < 0 else 1.0) * (0.5 if rise < -0.2 else 1.0)
                            if rise > 0.0:
                                seen += min(rise * 1.6, 1.0) * (light.zenith[c] - light.horizon[c])
                            lit = lit * (1 - fresnel) + seen * fresnel
                        colour[c] = lit * (1 - haze) + light.horizon[c] * haze
                for c in range(3):
                    total[c] += colour[c] * count
            for c in range(3):
                value = 1.0 - np.exp(-total[c] / rays * light.exposure)
                out[row, column, c] = screen[int(value * (len(screen) - 1))]
    return out


# Screen values of linear ones, as a table: a power for each pixel costs more than all the rest of its shading.
_SCREEN = np.round(255 * np.linspace(0, 1, 4096) ** (1 / 2.2)).astype(np.uint8)
