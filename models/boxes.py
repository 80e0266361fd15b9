"""The one box type: oriented 3D boxes in one frame, and its way to and from nuScenes' global boxes.

Size is (length, width, height) along the box's own x, y, z; yaw is counter-clockwise from the frame's +x to the box's
length axis; the centre is the centre of gravity. nuScenes writes (w, l, h) and a quaternion: only this file converts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from models.geometry import apply, heading, quaternion_to_rotation, rotation_to_quaternion, rotation_z, yaw_of


@dataclass(frozen=True)
class Boxes:
    """N boxes in one frame. Arrays share their first dimension; velocity is NaN where unknown."""

    centers: np.ndarray  # (N, 3) m, centre of gravity
    sizes: np.ndarray  # (N, 3) m, length, width, height
    yaws: np.ndarray  # (N,) rad
    velocities: np.ndarray  # (N, 2) m/s along the frame's x and y
    labels: np.ndarray  # (N,) int, position in names.CLASSES; -1 for no detection class
    scores: np.ndarray | None = None  # (N,) for predictions

    def __len__(self) -> int:
        return len(self.centers)

    def __getitem__(self, select: slice | np.ndarray | Sequence[int]) -> "Boxes":
        """The selected boxes (mask, slice, indices)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        selected: dict[str, Any] = {k: None if v is None else v[select] for k, v in values.items()}
        return Boxes(**selected)

    @property
    def required_scores(self) -> np.ndarray:
        """(N,) scores of predicted boxes; ValueError where they have none."""
        if self.scores is None:
            raise ValueError("predicted boxes need scores")
        return self.scores

    def best_first(self) -> np.ndarray:
        """(N,) their positions by falling score; of equal ones the first comes first."""
        return np.argsort(-self.required_scores, kind="stable")

    @classmethod
    def empty(cls) -> "Boxes":
        return cls(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)), np.zeros(0, np.int64))

    @classmethod
    def joined(cls, parts: "Sequence[Boxes]") -> "Boxes":
        """The boxes of at least one part, one after the other; with scores if every part has them."""
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        joined: dict[str, Any] = {
            k: None if any(a is None for a in v) else np.concatenate(v) for k, v in columns.items()
        }
        return cls(**joined)

    @classmethod
    def from_nuscenes(
        cls,
        translation: ArrayLike,
        size_wlh: ArrayLike,
        rotation: ArrayLike,
        velocity: ArrayLike,
        labels: ArrayLike,
        scores: ArrayLike | None = None,
    ) -> "Boxes":
        """Boxes in the frame of the given nuScenes fields: rotation (N, 4) wxyz, velocity (N, 2) or (N, 3)."""
        n = len(np.asarray(translation))
        turn = quaternion_to_rotation(np.asarray(rotation, np.float64).reshape(n, 4))
        return cls(
            centers=np.asarray(translation, np.float64).reshape(n, 3),
            sizes=np.asarray(size_wlh, np.float64).reshape(n, 3)[:, [1, 0, 2]],
            yaws=yaw_of(turn),
            velocities=np.asarray(velocity, np.float64).reshape(n, -1)[:, :2],
            labels=np.asarray(labels, np.int64),
            scores=None if scores is None else np.asarray(scores, np.float64),
        )

    def moved(self, a_to_b: np.ndarray) -> "Boxes":
        """Boxes of a level frame in frame b. If b tilts, a box keeps the x and y of its heading and velocity alone."""
        turn = a_to_b[:3, :3]
        ahead = np.stack([np.cos(self.yaws), np.sin(self.yaws), np.zeros(len(self))], -1) @ turn.T
        velocity = np.concatenate([self.velocities, np.zeros((len(self), 1))], 1) @ turn.T
        return replace(
            self,
            centers=apply(a_to_b, self.centers),
            yaws=heading(ahead),
            velocities=velocity[:, :2],
        )

    def levelled(self, a_to_level: np.ndarray) -> "Boxes":
        """Boxes of a tilted frame in a level one, exactly undoing `moved(level_to_a)`.

        nuScenes' boxes and velocities are level in the GLOBAL frame. The LiDAR's and the ego's tilt against it, by some
        degrees on a slope and by more where the LiDAR is mounted so, and boxes there keep only the x and y of their
        heading. What was dropped follows from being level: the z that makes the global z component zero. Between two
        tilted frames boxes therefore go through the global one: `boxes.levelled(a_to_global).moved(global_to_b)`.
        """

        def level(xy: np.ndarray) -> np.ndarray:
            turn = a_to_level[:3, :3]
            z = -(xy @ turn[2, :2]) / turn[2, 2]
            return (np.column_stack([xy, z]) @ turn.T)[:, :2]

        ahead = level(np.stack([np.cos(self.yaws), np.sin(self.yaws)], -1))
        return replace(
            self,
            centers=apply(a_to_level, self.centers),
            yaws=heading(ahead),
            velocities=level(self.velocities),
        )

    def quaternions(self) -> np.ndarray:
        """(N, 4) wxyz, the rotation field of nuScenes boxes."""
        return rotation_to_quaternion(rotation_z(self.yaws))

    def sizes_wlh(self) -> np.ndarray:
        """(N, 3), the size field of nuScenes boxes."""
        return self.sizes[:, [1, 0, 2]]

    def corners(self) -> np.ndarray:
        """(N, 8, 3): the bottom's four corners counter-clockwise from front-left, then the top's."""
        xy = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        signs = np.concatenate([np.c_[xy, -np.ones(4)], np.c_[xy, np.ones(4)]])
        local = signs[None] * self.sizes[:, None] / 2
        return local @ np.swapaxes(rotation_z(self.yaws), -1, -2) + self.centers[:, None]

    def centred_in(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the centre's x and y lie between those of `low` and `high`."""
        xy = self.centers[:, :2]
        return ((xy > low) & (xy < high)).all(1)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N, P) bool: whether point p (P, 3) lies inside or on box n."""
        local = np.einsum("npi,nij->npj", points[None] - self.centers[:, None], rotation_z(self.yaws))
        return (np.abs(local) <= self.sizes[:, None] / 2).all(-1)
