"""Who is in the street: every road user and object, what it looks like and how it moves, none touching another.

An actor moves at constant speed along the road's line and across it: (s, d) = (s0 + s_speed t, d0 + d_speed t). A new
one is drawn again until its footprint stays clear of everything else (the ego car too) over the whole scene.
"""

from dataclasses import dataclass

import numpy as np

from models.names import CLASSES, MOTION_ATTRIBUTES
from simulate.footprints import overlap
from simulate.rig import EGO_BODY
from simulate.shapes import build, sample_size
from simulate.solids import Solid
from simulate.town import BICYCLE, KERB, LANE, PARKING, PAVEMENT, Town

INSET = 0.01  # m that visible surfaces lie inside the annotated box
GROUND_GAP = 0.01  # m between the road and the annotated box, so that no point of the road counts as the object's
CLEARANCE = 0.2  # m kept between footprints
EGO_LANE = -LANE

# Objects of a scene at density 1, biggest first: what is placed first finds room.
COUNTS = {
    "bus": 3,
    "trailer": 3,
    "construction_vehicle": 2,
    "truck": 3,
    "car": 11,
    "barrier": 7,
    "motorcycle": 4,
    "bicycle": 4,
    "pedestrian": 10,
    "traffic_cone": 7,
}
assert sorted(COUNTS) == sorted(CLASSES)

CATEGORIES = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "construction_vehicle": ("vehicle.construction",),
    "bus": ("vehicle.bus.rigid",),
    "trailer": ("vehicle.trailer",),
    "barrier": ("movable_object.barrier",),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "pedestrian": ("human.pedestrian.adult",),
    "traffic_cone": ("movable_object.trafficcone",),
}


@dataclass(frozen=True)
class Place:
    """Where an actor is at t = 0 and how it moves; `turn` is its heading relative to the road's (rad)."""

    s: float
    d: float
    turn: float
    s_speed: float = 0.0
    d_speed: float = 0.0

    @property
    def moving(self) -> bool:
        return self.s_speed != 0.0 or self.d_speed != 0.0


@dataclass(frozen=True)
class Actor:
    """One object: `size` (l, w, h) is the annotated box; `solids` fill it up to INSET, in the object's frame."""

    name: str  # detection class
    category: str
    attribute: str
    size: np.ndarray
    place: Place
    solids: list[Solid]


class Traffic:
    """All actors of a scene and the ego's drive."""

    def __init__(self, town: Town, speed: float, duration: float, density: float, rng: np.random.Generator):
        self.town, self.speed = town, speed
        self._sway = rng.uniform(0, 2 * np.pi, 3)
        self._times = np.arange(-0.15, duration + 0.15, 0.1)
        ego_xy, ego_yaw = self.ego_pose(self._times)
        ahead = np.stack([np.cos(ego_yaw), np.sin(ego_yaw)], -1)
        self._ego = ego_xy + EGO_BODY[0] * ahead, ego_yaw, np.array(EGO_BODY[1:3]) / 2
        self.actors: list[Actor] = []
        self._taken: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # xy (T, 2), yaw (T,), half (2,)
        for name, count in COUNTS.items():
            for k in range(max(2, round(count * density))):
                self._add(name, k, rng)

    def ego_pose(self, t) -> tuple[np.ndarray, np.ndarray]:
        """Global xy (..., 2) and yaw (...,) of the ego at times t (s)."""
        t = np.asarray(t, np.float64)
        s = self.speed * (t + 0.25 * np.sin(0.8 * t + self._sway[0]))  # eases off and catches up
        return self.town.road.pose(s, EGO_LANE)

    def ego_tilt(self, t: float) -> tuple[float, float]:
        """Pitch and roll (rad) of the ego at time t: a car on its springs."""
        return float(0.004 * np.sin(1.9 * t + self._sway[1])), float(0.005 * np.sin(1.3 * t + self._sway[2]))

    def poses(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Global xy (A, 2) and yaw (A,) of all actors at time t."""
        place = np.array([(a.place.s, a.place.d, a.place.turn, a.place.s_speed, a.place.d_speed) for a in self.actors])
        xy, heading = self.town.road.pose(place[:, 0] + place[:, 3] * t, place[:, 1] + place[:, 4] * t)
        return xy, heading + place[:, 2]

    def _add(self, name: str, k: int, rng: np.random.Generator) -> None:
        for _ in range(80):
            size = sample_size(name, rng)
            place = self._draw(name, k, size, rng)
            half = size[:2] / 2 + CLEARANCE
            xy, heading = self.town.road.pose(
                place.s + place.s_speed * self._times, place.d + place.d_speed * self._times
            )
            yaw = heading + place.turn
            if self._free(xy, yaw, half, size[2]):
                self._taken.append((xy, yaw, half - CLEARANCE))
                self.actors.append(self._actor(name, size, place, rng))
                return

    def _free(self, xy, yaw, half, height: float) -> bool:
        taken = [self._ego, *self._taken]
        others = [np.stack([t[i] for t in taken]) for i in range(3)]
        if overlap(xy, yaw, half, *others).any():
            return False
        statics = [s for s in self.town.statics if s.bottom < height + 0.1]
        still_xy = np.repeat(np.stack([s.xy for s in statics])[:, None], len(xy), 1)
        still_yaw = np.repeat(np.array([s.yaw for s in statics])[:, None], len(xy), 1)
        return not overlap(xy, yaw, half, still_xy, still_yaw, np.array([s.half for s in statics])).any()

    @staticmethod
    def _actor(name: str, size: np.ndarray, place: Place, rng: np.random.Generator) -> Actor:
        categories = CATEGORIES[name]
        return Actor(
            name=name,
            category=categories[rng.integers(len(categories))],
            attribute=MOTION_ATTRIBUTES[name][0 if place.moving else 1],
            size=size,
            place=place,
            solids=build(name, size - 2 * INSET, place.moving, rng),
        )

    def _draw(self, name: str, k: int, size: np.ndarray, rng: np.random.Generator) -> Place:
        """One try for the k-th object of a class."""
        path = self.town.path
        side = int(rng.choice([-1, 1]))
        along = float(rng.uniform(-28, path + 38))
        site, yard = self.town.lots
        with_road = 0.0 if side < 0 else np.pi  # one drives on the right
        jitter = float(rng.normal(0, 0.02))

        def in_lot(lot, near: float, far: float, turn: float) -> Place:
            s = rng.uniform(lot.start + 2, lot.end - 2)
            return Place(float(s), float(lot.side * rng.uniform(near, far)), turn)

        def driving(speed: float, d: float) -> Place:
            return Place(along, side * d, with_road, -side * speed)

        if name in ("bus", "truck", "trailer"):
            if name != "trailer" and k % 3 == 0:
                return driving(float(rng.uniform(0.7, 1.1)) * self.speed, LANE)
            if k % 3 == 1:
                return Place(along, side * (PARKING - 0.05), with_road + jitter / 2)
            return in_lot(yard, 13, 23, float(rng.choice([0, np.pi])) + float(rng.normal(0, 0.25)))
        if name == "construction_vehicle":
            return in_lot(site, 12, 22, float(rng.uniform(-np.pi, np.pi)))
        if name == "car":
            if k % 5 < 2:
                return driving(float(rng.uniform(0.8, 1.2)) * self.speed, LANE)
            if k % 5 == 4:
                return in_lot(yard, 9.5, 24, float(rng.choice([0.5, -0.5])) * np.pi + jitter)
            return Place(along, side * PARKING, with_road + jitter)
        if name == "barrier":  # in a line before the building site
            return Place(float(rng.uniform(site.start, site.end)), site.side * (KERB + 0.9), np.pi / 2 + 3 * jitter)
        if name == "traffic_cone":
            if k % 3 == 2:  # beside the traffic
                return Place(float(rng.uniform(-5, path + 15)), side * float(rng.uniform(3.7, 5.1)), jitter)
            return Place(
                float(rng.uniform(site.start - 4, site.end + 4)), site.side * float(rng.uniform(6.0, 10.5)), jitter
            )
        if name in ("bicycle", "motorcycle"):
            if k % 2 == 0:
                speed = float(rng.uniform(3.0, 5.5)) if name == "bicycle" else float(rng.uniform(0.6, 1.2)) * self.speed
                return driving(speed, BICYCLE)
            near = float(rng.uniform(-12, path + 22))
            return Place(near, side * float(rng.uniform(8.6, 10.2)), float(rng.uniform(-np.pi, np.pi)))
        near = float(rng.uniform(-18, path + 28))
        if k % 6 == 0:  # crosses the road
            return Place(near, -side * 5.0, side * np.pi / 2, 0.0, side * float(rng.uniform(1.0, 1.6)))
        if k % 6 == 5:  # works on the site
            return in_lot(site, 9, 18, float(rng.uniform(-np.pi, np.pi)))
        d = side * float(rng.uniform(KERB + 1.6, PAVEMENT - 0.4))
        if k % 6 in (1, 2, 3):
            way = float(rng.choice([-1, 1]))
            return Place(near, d, 0.0 if way > 0 else np.pi, way * float(rng.uniform(0.9, 1.7)))
        return Place(near, d, float(rng.uniform(-np.pi, np.pi)))
