"""What cameras see of what their rays met: surfaces, sunlight and shadow, sky, reflections and haze.

A pixel is shaded once for each different face among its rays. Colours are linear RGB until the last step. Numba's
cache notices changes in this file alone: after changing a constant that is imported here, remove `__pycache__`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from simulate.cast import GROUND, SAMPLES, SHADOW_CELL, SKY, View
from simulate.solids import BANDS, BODY, FACADE, GLAZING, LEAVES, STRIPES, WHEEL, Solids
from simulate.town import ALBEDO_SCALE, CELL, Ground, hashed

# Screen values of linear ones, as a table: a power for each pixel costs more than all the rest of its shading.
_SCREEN = np.round(255 * np.linspace(0, 1, 4096) ** (1 / 2.2)).astype(np.uint8)


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


def shade(
    view: View, solids: Solids, camera_to_global: np.ndarray, intrinsics: np.ndarray, ground: Ground,
    shadows: np.ndarray, light: Light,
) -> np.ndarray:  # fmt: skip
    """The picture (height, width, 3) uint8 of what a camera's rays met."""
    return _shade(
        view.depth, view.solid, view.face, solids, camera_to_global, intrinsics, tuple(ground.colour), ground.far,
        shadows, light, _SCREEN,
    )  # fmt: skip


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
    if pattern == BODY:  # dark up to v = p0; lamps on both ends; ribs every p1 m
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
    elif pattern == GLAZING:  # glass between v = p0 and p1, pillars at the ends and every p2 m
        gloss = 0.25
        if not is_top and p0 < v < p1 and abs(u) < 0.93:
            pillar = abs(u) < 0.05 and p2 == 0.0 and not is_end
            pillar = pillar or (p2 > 0.0 and not is_end and (along + span) % p2 < 0.1)
            if not pillar:
                mix, gloss = 1.0, 0.75
    elif pattern == FACADE:  # windows p0 m apart in storeys of p1 m, p2 wide relative to their spacing
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
    elif pattern == STRIPES:  # slanted, p0 m apart
        if p0 < 2.0 or abs(v) < 0.35:
            mix = 1.0 if (along + lz) % (p0 if p0 < 2.0 else 0.6) < (0.5 * p0 if p0 < 2.0 else 0.3) else 0.0
            if footprint > 0.25:
                mix = 0.5
            if p0 > 2.0:
                mix *= 0.5
    elif pattern == BANDS:  # accent between v = p0 and p1
        mix = 1.0 if p0 < v < p1 else 0.0
    elif pattern == LEAVES:  # blotches of p0 m
        speck = hashed(int(np.floor(px / p0)), int(np.floor(py / p0)) + 57 * int(np.floor(pz / p0)), 3)
        fine = hashed(int(np.floor(px / 0.11)), int(np.floor(py / 0.11)) + 57 * int(np.floor(pz / 0.11)), 4)
        mix = 0.7 * speck + (0.45 * fine if footprint < 0.2 else 0.22)
    elif pattern == WHEEL:  # a hub within p0 of the radius
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
    colour, total = np.empty(3), np.empty(3)
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
                            reflected = light.horizon[c] * (0.45 if rise < 0 else 1.0) * (0.5 if rise < -0.2 else 1.0)
                            if rise > 0.0:
                                reflected += min(rise * 1.6, 1.0) * (light.zenith[c] - light.horizon[c])
                            lit = lit * (1 - fresnel) + reflected * fresnel
                        colour[c] = lit * (1 - haze) + light.horizon[c] * haze
                for c in range(3):
                    total[c] += colour[c] * count
            for c in range(3):
                value = 1.0 - np.exp(-total[c] / rays * light.exposure)
                out[row, column, c] = screen[int(value * (len(screen) - 1))]
    return out
