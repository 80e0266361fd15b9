"""A street of the town: the road's line, the painted ground, and what stands along it.

Positions along the street are (s, d): arc length along the road's middle line and offset to its left (m). Across the
street: two lanes, bicycle strips, parking bays, kerbs, pavements, then buildings and open lots. One lot is a building
site, the other a yard. The global frame's origin is the lower left corner of the painted ground, so that the map
mask's pixels are global positions.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from models.geometry import rotation_z
from models.names import OCCUPANCY_CLASSES
from simulate.footprints import overlap
from simulate.shapes import METAL, srgb
from simulate.solids import FACADE, LEAVES, Paint, Solid, ball, prism, tapered

CELL = 0.1  # m a pixel of the painted ground, and of the devkit's map mask
LANE, BICYCLE, PARKING, KERB, PAVEMENT = 1.9, 4.35, 6.05, 7.3, 11.0  # middle lines of the first three; outer edges
LOT_DEPTH = 27.0
ALBEDO_SCALE = 0.6 / 255  # of the painted ground's bytes
DRIVABLE, SIDEWALK, TERRAIN, MANMADE, VEGETATION = (
    OCCUPANCY_CLASSES.index(name) for name in ("driveable_surface", "sidewalk", "terrain", "manmade", "vegetation")
)

_RUN_OUT = 100.0  # m of road before and after the ego's path
_PAINTED = 75.0  # m of it that are painted ground


class Road:
    """The road's middle line, sampled every half metre."""

    def __init__(self, path: float, rng: np.random.Generator):
        """A straight road with one bend along the first `path` metres and slight swings."""
        self.s = np.arange(-_RUN_OUT, path + _RUN_OUT, 0.5)
        angle = np.deg2rad(rng.uniform(25, 65)) * rng.choice([-1, 1])
        radius, start = rng.uniform(35, 55), rng.uniform(0.1, 0.6) * path
        bend = np.where((self.s > start) & (self.s < start + radius * abs(angle)), np.sign(angle) / radius, 0.0)
        bend = _eased(bend, 24)  # in and out over 12 m
        swing = np.sin(self.s / rng.uniform(25, 40) + rng.uniform(0, 6)) / rng.uniform(250, 500)
        self.bend_end = start + radius * abs(angle) + 8
        self.heading = rng.uniform(-np.pi, np.pi) + np.cumsum(bend + swing) * 0.5
        steps = np.stack([np.cos(self.heading), np.sin(self.heading)], 1) * 0.5
        self.xy = np.cumsum(steps, 0)
        near = self.xy[(self.s > -_PAINTED) & (self.s < path + _PAINTED)]
        self.xy -= near.min(0) - 40.0
        self.extent = np.ceil(np.ptp(near, axis=0) + 80.0)  # (2,) m of painted ground along x and y
        self.tree = cKDTree(self.xy)

    def pose(self, s, d) -> tuple[np.ndarray, np.ndarray]:
        """Global xy (..., 2) and the road's heading (...,) at (s, d)."""
        s, d = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(d, np.float64))
        heading = np.interp(s, self.s, self.heading)
        xy = np.stack([np.interp(s, self.s, self.xy[:, 0]), np.interp(s, self.s, self.xy[:, 1])], -1)
        return xy + d[..., None] * np.stack([-np.sin(heading), np.cos(heading)], -1), heading

    def locate(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and d (N,) of global points (N, 2)."""
        _, i = self.tree.query(xy)
        heading, offset = self.heading[i], xy - self.xy[i]
        along = np.cos(heading) * offset[:, 0] + np.sin(heading) * offset[:, 1]
        return self.s[i] + along, np.cos(heading) * offset[:, 1] - np.sin(heading) * offset[:, 0]


def _eased(values: np.ndarray, width: int) -> np.ndarray:
    """(N,) means of `width` neighbours, zeros beyond the ends.

    By running sums, whose order is fixed: np.convolve's is that of the machine's BLAS, and worlds would differ in bits.
    """
    sums = np.cumsum(np.pad(values, (width // 2 + 1, width // 2)))
    return (sums[width:] - sums[:-width])[: len(values)] / width


@dataclass(frozen=True)
class Lot:
    """An open place beside the road, from the kerb to LOT_DEPTH."""

    start: float  # s
    end: float
    side: int  # 1 left, -1 right
    building_site: bool


@dataclass(frozen=True)
class Static:
    """Something that stands: its solids in the global frame, and its footprint for the no-overlap test."""

    solids: list[Solid]
    xy: np.ndarray
    yaw: float
    half: tuple[float, float]
    label: int = MANMADE  # position in names.OCCUPANCY_CLASSES
    bottom: float = 0.0  # m, lowest point over the footprint; a tree's crown lets people pass below


@dataclass(frozen=True)
class Ground:
    """The painted ground as images, row = y / CELL, column = x / CELL, in levels of 1, 2, 4, ... cells a pixel."""

    colour: list[np.ndarray]  # levels of (rows, columns, 3) uint8, albedo / ALBEDO_SCALE
    reflectance: np.ndarray  # (rows, columns) uint8, LiDAR intensity at normal incidence
    label: np.ndarray  # (rows, columns) uint8, DRIVABLE, SIDEWALK or TERRAIN
    far: np.ndarray  # (3,) albedo beyond the painted ground


class Town:
    """One scene's street with all that stands along it."""

    def __init__(self, path: float, rng: np.random.Generator):
        self.path = path
        self.road = Road(path, rng)
        self.crossing = float(rng.uniform(path + 14, path + 24) if rng.random() < 0.5 else rng.uniform(-24, -14))
        side = int(rng.choice([-1, 1]))
        site, yard = rng.uniform(2, max(3.0, path - 22)), rng.uniform(-4, max(0.0, path - 24))
        self.lots = [Lot(site, site + 26, side, True), Lot(yard, yard + 30, -side, False)]
        self.statics = self._buildings(rng) + self._street_furniture(rng)
        self.ground = self._paint(rng)

    def is_open(self, s: float, margin: float, side: int) -> bool:
        """Whether nothing built may stand at s on this side: a lot or the crossing street."""
        in_lot = any(lot.side == side and lot.start - margin < s < lot.end + margin for lot in self.lots)
        return in_lot or abs(s - self.crossing) < 6.5 + margin

    def _buildings(self, rng) -> list[Static]:
        out: list[Static] = []
        for side in (-1, 1):
            s = -_PAINTED + 5
            while s < self.path + _PAINTED - 10:
                length, depth, height = rng.uniform(10, 22), rng.uniform(9, 14), rng.uniform(5, 17)
                gap = rng.uniform(0.5, 2) if rng.random() < 0.6 else rng.uniform(4, 9)
                middle, setback = s + length / 2, PAVEMENT + rng.uniform(0.4, 3)
                s += length + gap
                behind = any(
                    lot.side == side and lot.start - length / 2 < middle < lot.end + length / 2 for lot in self.lots
                )
                if abs(middle - self.crossing) < 6.5 + length / 2:
                    continue
                d = side * ((LOT_DEPTH if behind else setback) + depth / 2)
                xy, heading = self.road.pose(middle, d)
                building = Static([], xy, float(heading), (length / 2 + 0.2, depth / 2 + 0.2))
                if self._clears_road(building) and not any(_footprints_touch(building, other) for other in out):
                    building.solids.extend(_building(xy, float(heading), length, depth, height, rng))
                    out.append(building)
        return out

    def _clears_road(self, static: Static) -> bool:
        u = np.linspace(-1, 1, 9)
        rim = np.concatenate(
            [
                np.stack([u, 0 * u - 1], 1),
                np.stack([u, 0 * u + 1], 1),
                np.stack([0 * u - 1, u], 1),
                np.stack([0 * u + 1, u], 1),
            ]
        )
        rim = rim * static.half @ rotation_z(static.yaw)[:2, :2].T + static.xy
        s, d = self.road.locate(rim)
        in_lot = [
            (np.sign(d) == lot.side) & (s > lot.start) & (s < lot.end) & (np.abs(d) < LOT_DEPTH - 1)
            for lot in self.lots
        ]
        return bool((np.abs(d) > PAVEMENT + 0.2).all() and not np.any(in_lot) and (np.abs(s - self.crossing) > 6).all())

    def _street_furniture(self, rng) -> list[Static]:
        out = []
        for side in (-1, 1):
            for k, s in enumerate(np.arange(-60 + 4 * side, self.path + 60, 11.0)):
                if self.is_open(s, 2.0, side):
                    continue
                xy, heading = self.road.pose(s, side * (KERB + 0.75))
                if k % 3 == 2:
                    out.append(_lamp(xy, float(heading) - side * np.pi / 2))
                elif rng.random() < 0.85:
                    out.extend(_tree(xy, rng))
        return out

    def _paint(self, rng) -> Ground:
        columns, rows = (self.road.extent / CELL).astype(int)
        coarse = 8  # cells between the positions that are located; the kernel interpolates, for (s, d) is smooth
        y, x = np.mgrid[0 : rows + coarse : coarse, 0 : columns + coarse : coarse] * CELL
        s, d = self.road.locate(np.stack([x.ravel(), y.ravel()], 1))
        lots = np.array([(lot.start, lot.end, lot.side, lot.building_site) for lot in self.lots], np.float64)
        grass = np.array(srgb([("71804a"), ("8a8d55"), ("66774f")][rng.integers(3)]))
        asphalt = np.array(srgb(("5a5c60", "66645f", "4c4e53")[rng.integers(3)]))
        colour, reflectance, label = _paint_ground(
            s.reshape(x.shape), d.reshape(x.shape), coarse, rows, columns, self.crossing, lots, grass, asphalt,
            int(rng.integers(1 << 30)),
        )  # fmt: skip
        levels = [colour]
        while min(levels[-1].shape[:2]) > 64 and len(levels) < 6:
            a = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2].astype(np.uint16)
            levels.append(((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] + 2) // 4).astype(np.uint8))
        return Ground(levels, reflectance, label, grass)


def _footprints_touch(a: Static, b: Static) -> bool:
    return bool(
        overlap(
            a.xy[None], np.array([a.yaw]), np.array(a.half), b.xy[None, None], np.array([[b.yaw]]), np.array([b.half])
        )
    )


WALLS = [srgb(c) for c in ("c9b79c", "a8674d", "d8d3c6", "8f9aa3", "b98f6a", "7d8a78", "d9c08c", "9c8480", "c7ccd1")]


def _building(xy, yaw: float, length: float, depth: float, height: float, rng) -> list[Solid]:
    wall = WALLS[rng.integers(len(WALLS))]
    storey = float(rng.uniform(2.9, 3.5))
    height = max(2, round(height / storey)) * storey
    facade = Paint(
        wall, srgb("2c3a46"), FACADE, (float(rng.uniform(1.8, 3.0)), storey, float(rng.uniform(0.45, 0.68))), 55.0
    )
    trim = Paint(tuple(0.55 * c for c in wall), reflectance=50.0)
    turn = rotation_z(yaw)

    def place(solid: Solid, x, y, z):
        return solid.at(np.array([*xy, 0.0]) + turn @ np.array([x, y, z]), turn)

    out = [
        place(tapered((length / 2, depth / 2, height / 2), facade), 0, 0, height / 2),
        place(tapered((length / 2 + 0.15, depth / 2 + 0.15, 0.3), trim), 0, 0, height + 0.3),
    ]
    if rng.random() < 0.5:  # a stair tower or plant room on the roof
        room = Paint(tuple(0.8 * c for c in wall), reflectance=50.0)
        out.append(place(tapered((1.8, 1.5, 1.2), room), rng.uniform(-0.3, 0.3) * length, 0, height + 1.8))
    return out


def _tree(xy, rng) -> list[Static]:
    height, radius = rng.uniform(5.5, 8.5), rng.uniform(1.2, 1.6)
    green = np.array(srgb([("4f6b33"), ("5f7a3a"), ("6d7336"), ("3f5f3c")][rng.integers(4)]))
    leaves = Paint(tuple(green), tuple(green * 0.45), LEAVES, (0.35, 0.0, 0.0), 45.0)
    bottom = 3.9
    trunk = prism((0.16, 0.16, 2.2), Paint(srgb("5d4a38"), reflectance=35.0), sides=6).at((*xy, 2.2))
    crown = ball((radius, radius, (height - bottom) / 2), leaves).at((*xy, (height + bottom) / 2))
    tuft = ball((radius * 0.7, radius * 0.7, 0.9), leaves).at(
        (xy[0] + 0.3 * radius, xy[1] - 0.3 * radius, height - 0.4)
    )
    return [
        Static([trunk], xy, 0.0, (0.18, 0.18), VEGETATION),
        Static([crown, tuft], xy, 0.0, (radius, radius), VEGETATION, bottom),
    ]


def _lamp(xy, yaw: float) -> Static:
    steel = Paint(METAL, reflectance=60.0)
    turn = rotation_z(yaw)
    arm = np.array([*xy, 6.9]) + turn @ np.array([0.9, 0, 0])
    return Static(
        [
            prism((0.09, 0.09, 3.5), steel, sides=6, top=0.6).at((*xy, 3.5)),
            tapered((1.0, 0.05, 0.05), steel).at(arm, turn),
            tapered((0.3, 0.12, 0.06), Paint(srgb("f0efe4"))).at(arm + turn @ np.array([1.1, 0, -0.02]), turn),
        ],
        xy,
        0.0,
        (0.15, 0.15),
    )


@njit(cache=True)
def _noise(x, y, seed):
    """Smooth value noise in 0..1 with unit spacing."""
    i, j = int(np.floor(x)), int(np.floor(y))
    a, b = x - i, y - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = hashed(i, j, seed) * (1 - a) + hashed(i + 1, j, seed) * a
    high = hashed(i, j + 1, seed) * (1 - a) + hashed(i + 1, j + 1, seed) * a
    return low * (1 - b) + high * b


@njit(cache=True)
def hashed(i, j, seed):
    """A fixed pseudo-random number in 0..1 for two integers."""
    h = (i * 374761393 + j * 668265263 + seed * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@njit(cache=True)
def _paint_ground(s_grid, d_grid, coarse, rows, columns, crossing, lots, grass, asphalt, seed):
    colour = np.empty((rows, columns, 3), np.uint8)
    reflectance = np.empty((rows, columns), np.uint8)
    label = np.full((rows, columns), TERRAIN, np.uint8)
    for row in range(rows):
        for column in range(columns):
            i, j = row // coarse, column // coarse
            a, b = (row % coarse + 0.5) / coarse, (column % coarse + 0.5) / coarse
            w0, w1, w2, w3 = (1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b
            s = w0 * s_grid[i, j] + w1 * s_grid[i, j + 1] + w2 * s_grid[i + 1, j] + w3 * s_grid[i + 1, j + 1]
            d = w0 * d_grid[i, j] + w1 * d_grid[i, j + 1] + w2 * d_grid[i + 1, j] + w3 * d_grid[i + 1, j + 1]
            off, from_crossing = abs(d), abs(s - crossing)
            grain = 0.5 * hashed(row, column, seed) + 0.5 * _noise(row * 0.25, column * 0.25, seed)
            patch = _noise(row * 0.012, column * 0.012, seed + 1)
            r, g, bl = grass[0], grass[1], grass[2]
            shade, back = 0.6 + 0.5 * grain + 0.4 * patch, 28.0
            lot = -1
            for k in range(lots.shape[0]):
                if lots[k, 0] < s < lots[k, 1] and d * lots[k, 2] > KERB and off < LOT_DEPTH:
                    lot = k
            road = off < KERB or (from_crossing < 5.0 and off < 60.0)
            if road:
                r, g, bl = asphalt[0], asphalt[1], asphalt[2]
                shade, back = 0.75 + 0.3 * grain + 0.25 * patch, 11.0
                label[row, column] = DRIVABLE
            elif lot >= 0 and lots[lot, 3] > 0:  # bare earth
                r, g, bl = 0.24, 0.165, 0.10
                shade, back = 0.6 + 0.4 * grain + 0.4 * _noise(row * 0.06, column * 0.06, seed + 2), 24.0
            elif lot >= 0:  # concrete yard
                r, g, bl = 0.27, 0.265, 0.25
                shade, back = 0.8 + 0.2 * grain + 0.2 * patch, 20.0
                if s % 5.0 < 0.1 or off % 5.0 < 0.1:
                    shade *= 0.6
                label[row, column] = DRIVABLE
            elif off < PAVEMENT:
                label[row, column] = SIDEWALK
                r, g, bl = 0.30, 0.285, 0.26
                shade, back = 0.82 + 0.18 * grain + 0.15 * patch, 22.0
                if s % 1.2 < 0.1 or (off - KERB) % 1.2 < 0.1:
                    shade *= 0.72
            paint = 0.0
            if KERB - 0.2 < off < KERB and from_crossing > 5.0:
                r, g, bl, shade, back = 0.36, 0.35, 0.33, 0.9 + 0.2 * grain, 26.0
                label[row, column] = SIDEWALK
            elif off < KERB and from_crossing > 9.5:
                dashes = 3.6 < off < 3.75 and s % 3.0 < 1.6
                bays = 4.95 < off < 5.07 or (off > 5.05 and s % 6.5 < 0.12)
                paint = 2.0 if 0.08 < off < 0.24 else 1.0 if dashes or bays else 0.0
            elif off < 7.0 and from_crossing > 5.5:
                zebra = 6.3 < from_crossing < 8.7 and (d + 20.0) % 1.0 < 0.5
                stop = 9.0 < from_crossing < 9.4 and d * (s - crossing) > 0.0 and 0.3 < off < 3.6
                paint = 1.0 if zebra or stop else 0.0
            if paint > 0.0 and hashed(row, column, seed + 3) > 0.06:
                shade, back = 0.85 + 0.2 * patch, 75.0
                r, g, bl = (0.52, 0.52, 0.5) if paint == 1.0 else (0.5, 0.34, 0.05)
            colour[row, column, 0] = min(255.0, r * shade / ALBEDO_SCALE + 0.5)
            colour[row, column, 1] = min(255.0, g * shade / ALBEDO_SCALE + 0.5)
            colour[row, column, 2] = min(255.0, bl * shade / ALBEDO_SCALE + 0.5)
            reflectance[row, column] = min(255.0, back * (0.7 + 0.6 * grain))
    return colour, reflectance, label
