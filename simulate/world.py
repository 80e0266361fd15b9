"""One scene: the town, its traffic, its light, and where everything is at a time."""

import numpy as np

from models.boxes import Boxes
from models.geometry import rotation_z, transform
from models.names import CLASSES, OCCUPANCY_CLASSES
from simulate.cast import SHADOW_CELL, cast_shadows
from simulate.config import SimulateConfig
from simulate.scenes import scenes_of
from simulate.shade import Light
from simulate.solids import Solids, join, stack
from simulate.town import Town
from simulate.traffic import GROUND_GAP, INSET, Traffic

KEYFRAME_PERIOD = 0.5  # s


class World:
    """Everything in one scene, as a function of the time t (s) since its first key frame. Frames are global."""

    def __init__(self, config: SimulateConfig, scene: str):
        rng = np.random.default_rng([config.seed, scenes_of(config.scenes).names.index(scene)])
        self.duration = (config.keyframes - 1) * KEYFRAME_PERIOD
        speed = float(rng.uniform(5.0, 8.5))
        self.town = Town(max(speed * self.duration, 15.0), rng)
        self.traffic = Traffic(self.town, speed, self.duration, config.density, rng)
        self.light = _light(rng)
        self.actors = self.traffic.actors
        things = self.town.statics
        statics = stack([s.solids for s in things], [-1] * len(things), [s.label for s in things])
        labels = [OCCUPANCY_CLASSES.index(a.name) for a in self.actors]
        objects = stack([a.solids for a in self.actors], list(range(len(self.actors))), labels)
        moving = np.array([a.place.moving for a in self.actors])[objects.owner]
        standing = join(statics, self._placed(_take(objects, ~moving), 0.0))
        self._standing, self._moving = standing, _take(objects, moving)
        self._standing_shadows = np.zeros(np.ceil(self.town.road.extent[::-1] / SHADOW_CELL).astype(int), np.float32)
        cast_shadows(standing, self.light.sun, self._standing_shadows)

    def ego_to_global(self, t: float) -> np.ndarray:
        """(4, 4). The car stands on the ground and sways a little."""
        xy, yaw = self.traffic.ego_pose(t)
        pitch, roll = self.traffic.ego_tilt(t)
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        tilt = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        return transform(rotation_z(yaw) @ tilt, np.array([*xy, 0.0]))

    def solids(self, t: float) -> Solids:
        """All solids at time t; those of actor i have owner i."""
        return join(self._standing, self._placed(self._moving, t))

    def shadows(self, t: float) -> np.ndarray:
        """The shadow map at time t (see `cast.cast_shadows`)."""
        shadows = self._standing_shadows.copy()
        cast_shadows(self._placed(self._moving, t), self.light.sun, shadows)
        return shadows

    def boxes(self, t: float) -> Boxes:
        """The actors' annotated boxes at time t; velocities are left unknown (annotations give them)."""
        xy, yaw = self.traffic.poses(t)
        sizes = np.stack([a.size for a in self.actors])
        return Boxes(
            centers=np.concatenate([xy, GROUND_GAP + sizes[:, 2:] / 2], 1),
            sizes=sizes,
            yaws=yaw,
            velocities=np.full((len(yaw), 2), np.nan),
            labels=np.array([CLASSES.index(a.name) for a in self.actors]),
        )

    def _placed(self, objects: Solids, t: float) -> Solids:
        xy, yaw = self.traffic.poses(t)
        position = np.concatenate([xy, np.full((len(xy), 1), GROUND_GAP + INSET)], 1)
        return objects.moved(rotation_z(yaw)[objects.owner], position[objects.owner])


def _take(solids: Solids, select: np.ndarray) -> Solids:
    """The selected solids (mask); owners keep their numbers."""
    counts = np.diff(solids.offsets)
    columns = {name: getattr(solids, name)[select] for name in Solids._fields if name not in ("planes", "offsets")}
    planes = solids.planes[np.repeat(select, counts)]
    return Solids(planes=planes, offsets=np.concatenate([[0], np.cumsum(counts[select])]), **columns)


def _light(rng: np.random.Generator) -> Light:
    """The hour and the weather of a scene."""
    azimuth = rng.uniform(-np.pi, np.pi)
    cloud = float(rng.choice([0.0, 0.25, 0.5, 0.95], p=[0.3, 0.3, 0.2, 0.2]))
    elevation = np.deg2rad(rng.uniform(24, 62))
    warm = np.clip((np.deg2rad(45) - elevation) / np.deg2rad(25), 0, 1)
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    sun_colour = (
        (np.array([1.0, 0.95, 0.86]) * (1 - warm) + np.array([1.0, 0.78, 0.52]) * warm) * 3.4 * (1 - 0.92 * cloud)
    )
    grey = np.array([0.74, 0.77, 0.80])
    ambient = np.array([0.40, 0.50, 0.66]) * (1 - cloud) + 1.25 * grey * cloud
    zenith = np.array([0.16, 0.33, 0.72]) * (1 - cloud) + 0.75 * grey * cloud
    horizon = (np.array([0.72, 0.80, 0.88]) * (1 - 0.4 * warm) + np.array([0.95, 0.74, 0.5]) * 0.4 * warm) * (1 - cloud)
    horizon = horizon + 0.85 * grey * cloud
    return Light(
        sun,
        sun_colour,
        ambient,
        zenith,
        horizon,
        cloud,
        float(rng.uniform(0.001, 0.0035)),
        float(rng.uniform(0.85, 1.3)),
    )
