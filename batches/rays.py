"""Rays to render: through LiDAR points that a camera sees, and through pixels of which only the colour is known."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models import geometry

SKY = 0.4  # share of an image's height, from the top, in which rays without a point would look at the sky
STEP = 4  # px between the pixels that they are drawn from
NEAREST = 0.5  # m along the optical axis


@dataclass(frozen=True)
class Box:
    """What is rendered, m in the LiDAR's frame."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


class RaySet(NamedTuple):
    """R rays of each of N cameras, one camera after the other. float32 but for `cast` and `pixels`."""

    origins: np.ndarray  # (N * R, 3) m, in the LiDAR's frame
    directions: np.ndarray  # (N * R, 3) of length 1
    colours: np.ndarray  # (N * R, 3) from 0 to 1
    depths: np.ndarray  # (N * R,) m along the ray, 0 where there is no point
    cast: np.ndarray  # (N * R,) bool
    pixels: np.ndarray  # (N * R, 3) int64: camera, row and column in the network's input


class View(NamedTuple):
    """A camera and its image."""

    camera_to_lidar: np.ndarray  # (4, 4)
    intrinsics: np.ndarray  # (3, 3), of the stored image
    post_homography: np.ndarray  # (4, 4), stored pixel (u, v, depth, 1) -> pixel of `image`
    source_size: np.ndarray  # (2,) width and height of the stored image
    image: np.ndarray  # (H, W, 3) uint8, the network's input


def draw_rays(
    points: np.ndarray, views: list[View | None], count: int, box: Box, random: np.random.Generator
) -> RaySet:
    """`count` rays of each view, none of a view that is None.

    points: (n, 3) m, in the LiDAR's frame. Those in the box that fall into the image come first, at random where there
    are more than `count`; pixels below the sky fill up.
    """
    points = points[((points > box.low) & (points < box.high)).all(1)]
    empty = (np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2), np.int64))
    drawn = [empty if view is None else _through(points, view, count, random) for view in views]
    out = RaySet(
        np.zeros((len(views), count, 3), np.float32),
        np.tile(np.array([1, 0, 0], np.float32), (len(views), count, 1)),
        np.zeros((len(views), count, 3), np.float32),
        np.zeros((len(views), count), np.float32),
        np.zeros((len(views), count), bool),
        np.zeros((len(views), count, 3), np.int64),
    )
    for camera, (view, (towards, depths, pixels)) in enumerate(zip(views, drawn)):
        rows, columns = pixels.T
        here = slice(0, len(pixels))
        out.cast[camera, here] = True
        out.pixels[camera, here] = np.stack([np.full_like(rows, camera), rows, columns], 1)
        out.depths[camera, here] = depths
        if view is not None:
            out.origins[camera] = view.camera_to_lidar[:3, 3]
            out.directions[camera, here] = towards
            out.colours[camera, here] = view.image[rows, columns] / np.float32(255)
    return RaySet(*(field.reshape(-1, *field.shape[2:]) for field in out))


def _through(
    points: np.ndarray, view: View, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions (r, 3) in the LiDAR's frame, depths (r,) and pixels (r, 2) row and column, r <= count."""
    seen, pixels = visible_points(points, view)
    chosen = random.choice(len(seen), min(len(seen), count), replace=False)
    offsets = points[seen[chosen]] - view.camera_to_lidar[:3, 3]
    depths = np.linalg.norm(offsets, axis=1)
    free = sky_free_pixels(view)
    fill = free[random.choice(len(free), min(len(free), count - len(chosen)), replace=False)]
    directions = np.concatenate([offsets / depths[:, None], pixel_directions(fill, view)])
    return directions, np.concatenate([depths, np.zeros(len(fill))]), np.concatenate([pixels[chosen], fill])


def visible_points(points: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Which points (k,) fall into the network's input, and their pixels (k, 2) int64, row and column."""
    place, depth = geometry.project(geometry.apply(geometry.inverse(view.camera_to_lidar), points), view.intrinsics)
    (xx, xy, _, x0), (yx, yy, _, y0), *_ = view.post_homography
    height, width = view.image.shape[:2]
    with np.errstate(invalid="ignore", over="ignore"):
        column, row = xx * place[:, 0] + xy * place[:, 1] + x0, yx * place[:, 0] + yy * place[:, 1] + y0
        seen = np.flatnonzero(
            (depth > NEAREST)
            & (column >= 0)
            & (column < width)
            & (row >= 0)
            & (row < height)
            & (place >= 0).all(1)
            & (place < view.source_size).all(1)
        )
    return seen, np.stack([row[seen], column[seen]], 1).astype(np.int64)


def sky_free_pixels(view: View) -> np.ndarray:
    """(k, 2) rows and columns, every STEP-th of the network's input below the sky that shows something."""
    height, width = view.image.shape[:2]
    rows, columns = np.meshgrid(np.arange(int(SKY * height), height, STEP), np.arange(0, width, STEP), indexing="ij")
    pixels = np.stack([rows.ravel(), columns.ravel()], 1)
    source = _source(pixels, view)
    return pixels[((source >= 0) & (source < view.source_size)).all(1)]


def pixel_directions(pixels: np.ndarray, view: View) -> np.ndarray:
    """(k, 3) of length 1 in the LiDAR's frame, through the middles of pixels (k, 2), row and column."""
    source = np.concatenate([_source(pixels, view), np.ones((len(pixels), 1))], 1)
    towards = source @ np.linalg.inv(view.intrinsics).T @ view.camera_to_lidar[:3, :3].T
    return towards / np.linalg.norm(towards, axis=1, keepdims=True)


def _source(pixels: np.ndarray, view: View) -> np.ndarray:
    """(k, 2) u, v in the stored image of the middles of pixels (k, 2), row and column."""
    back = np.linalg.inv(view.post_homography)
    u_v = pixels[:, ::-1] + 0.5
    return u_v @ back[:2, :2].T + back[:2, 3]
