"""Convex solids, the one building block of everything that stands in the town.

A solid is a convex polyhedron given by its faces' planes: a point p is inside where n . p <= d for all of them. Boxes,
tapered cabins, eight-sided wheels, cones and faceted tree crowns are all of this kind, so that one interval test
serves cameras, LiDAR and shadows. Each solid has a frame of its own (its tight bounds are +-half there), in which its
surface pattern is laid out.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

# Surface patterns; what their parameters mean is in `shade._albedo`.
PLAIN, BODY, GLAZING, FACADE, STRIPES, BANDS, LEAVES, WHEEL = range(8)


@dataclass(frozen=True)
class Paint:
    """How a surface looks to cameras and LiDAR. Colours are linear RGB albedos in 0..1."""

    base: tuple[float, float, float]
    accent: tuple[float, float, float] = (0.02, 0.02, 0.03)
    pattern: int = PLAIN
    params: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reflectance: float = 40.0  # LiDAR intensity at normal incidence, 0..255


@dataclass(frozen=True)
class Solid:
    """A convex polyhedron: planes in its own frame, and that frame's pose in the owner's frame."""

    planes: np.ndarray  # (F, 4) unit outward normal and offset
    half: np.ndarray  # (3,) half extents
    paint: Paint
    center: np.ndarray = field(default_factory=lambda: np.zeros(3))  # (3,) of the solid's frame in the owner's
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # (3, 3)

    def at(self, center, rotation: np.ndarray | None = None) -> "Solid":
        return replace(
            self, center=np.array(center, np.float64), rotation=self.rotation if rotation is None else rotation
        )


def tapered(half, paint: Paint, top: tuple[float, float] = (1.0, 1.0), shift: float = 0.0) -> Solid:
    """A box whose top face is `top` times the bottom's length and width, and shifted along x (fraction of half)."""
    x, y, z = (float(v) for v in half)
    front, back = min(shift + top[0], 1.0) * x, max(shift - top[0], -1.0) * x
    normals = [
        (2 * z, 0, x - front), (-2 * z, 0, x + back), (0, 2 * z, y - top[1] * y), (0, -2 * z, y - top[1] * y),
        (0, 0, 1), (0, 0, -1),
    ]  # fmt: skip
    anchors = [(x, 0, -z), (-x, 0, -z), (0, y, -z), (0, -y, -z), (0, 0, z), (0, 0, -z)]
    return Solid(_planes(normals, anchors), np.array([x, y, z]), paint)


def prism(half, paint: Paint, axis: int = 2, sides: int = 8, top: float = 1.0) -> Solid:
    """An elliptic cylinder along an axis as a prism; with top < 1 a cone cut off, narrow at the axis' positive end."""
    half = np.array(half, np.float64)
    a, b = [i for i in range(3) if i != axis]
    normals, anchors = [], []
    for angle in np.arange(sides) * 2 * np.pi / sides:
        normal, anchor = np.zeros(3), np.zeros(3)
        normal[[a, b]] = np.cos(angle) / half[a], np.sin(angle) / half[b]
        normal[axis] = (1 - top) / (2 * half[axis])
        anchor[[a, b]] = half[a] * np.cos(angle), half[b] * np.sin(angle)
        anchor[axis] = -half[axis]
        normals.append(normal)
        anchors.append(anchor)
    for sign in (1.0, -1.0):
        end = np.zeros(3)
        end[axis] = sign
        normals.append(end)
        anchors.append(end * half)
    return Solid(_planes(normals, anchors), half, paint)


def ball(half, paint: Paint) -> Solid:
    """An ellipsoid as the 26-sided polyhedron around it."""
    half = np.array(half, np.float64)
    grid = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) != (0, 0, 0)])
    unit = grid / np.linalg.norm(grid, axis=1, keepdims=True)
    return Solid(_planes(unit / half, unit * half), half, paint)


def _planes(normals, anchors) -> np.ndarray:
    normals, anchors = np.array(normals, np.float64), np.array(anchors, np.float64)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.concatenate([normals, (normals * anchors).sum(1, keepdims=True)], 1)


class Solids(NamedTuple):
    """P solids with F faces in all, in one frame; a struct of arrays that Numba understands."""

    planes: np.ndarray  # (F, 4)
    offsets: np.ndarray  # (P + 1,) faces of solid p: planes[offsets[p]:offsets[p + 1]]
    center: np.ndarray  # (P, 3)
    rotation: np.ndarray  # (P, 3, 3) solid to frame
    half: np.ndarray  # (P, 3)
    owner: np.ndarray  # (P,) index of the object that the solid belongs to, -1 for the town itself
    label: np.ndarray  # (P,) position in names.OCCUPANCY_CLASSES
    pattern: np.ndarray  # (P,)
    params: np.ndarray  # (P, 3)
    base: np.ndarray  # (P, 3)
    accent: np.ndarray  # (P, 3)
    reflectance: np.ndarray  # (P,)

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> "Solids":
        """The same solids after p -> rotation p + translation; one motion (3, 3), (3,), or one a solid (P, ...)."""
        rotation = np.broadcast_to(rotation, (len(self.center), 3, 3))
        translation = np.broadcast_to(translation, (len(self.center), 3))
        face_of = np.repeat(np.arange(len(self.center)), np.diff(self.offsets))
        normals = np.einsum("fij,fj->fi", rotation[face_of], self.planes[:, :3])
        shift = np.einsum("fi,fi->f", normals, translation[face_of])
        return self._replace(
            planes=np.concatenate([normals, (self.planes[:, 3] + shift)[:, None]], 1),
            center=np.einsum("pij,pj->pi", rotation, self.center) + translation,
            rotation=rotation @ self.rotation,
        )

    def corners(self) -> np.ndarray:
        """(P, 8, 3) corners of the solids' bounding boxes; bit 0, 1, 2 of the corner's number is x, y, z."""
        signs = np.array([[(k >> axis & 1) * 2 - 1 for axis in range(3)] for k in range(8)])
        return np.einsum("pij,pkj->pki", self.rotation, signs * self.half[:, None]) + self.center[:, None]


def stack(groups: list[list[Solid]], owners: list[int], labels: list[int]) -> Solids:
    """All solids of all groups (each in its owner's frame), with the owner's number and the label of each group."""
    solids = [solid for group in groups for solid in group]
    planes = [np.concatenate([s.planes[:, :3] @ s.rotation.T, s.planes[:, 3:]], 1) for s in solids]
    for p, s in zip(planes, solids, strict=True):
        p[:, 3] += p[:, :3] @ s.center
    paints = [s.paint for s in solids]

    def column(values, dtype, *shape):
        return np.array(values, dtype).reshape(len(solids), *shape)

    return Solids(
        planes=np.concatenate([*planes, np.zeros((0, 4))]),
        offsets=np.concatenate([[0], np.cumsum([len(p) for p in planes])]).astype(np.int64),
        center=column([s.center for s in solids], np.float64, 3),
        rotation=column([s.rotation for s in solids], np.float64, 3, 3),
        half=column([s.half for s in solids], np.float64, 3),
        owner=np.repeat(np.array(owners, np.int64), [len(g) for g in groups]),
        label=np.repeat(np.array(labels, np.int64), [len(g) for g in groups]),
        pattern=column([p.pattern for p in paints], np.int64),
        params=column([p.params for p in paints], np.float64, 3),
        base=column([p.base for p in paints], np.float64, 3),
        accent=column([p.accent for p in paints], np.float64, 3),
        reflectance=column([p.reflectance for p in paints], np.float64),
    )


def join(a: Solids, b: Solids) -> Solids:
    """Both sets of solids as one; owners keep their numbers."""
    merged = {
        name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in Solids._fields if name != "offsets"
    }
    return Solids(offsets=np.concatenate([a.offsets, a.offsets[-1] + b.offsets[1:]]), **merged)
