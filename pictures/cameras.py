"""Camera images with boxes and LiDAR points on them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataroot.images import read_image
from models.boxes import Boxes
from models.geometry import apply, inverse
from pictures.palette import PLASMA, scale
from pictures.strokes import Stroke, draw_line, label
from storage.index import Index

Layer = tuple[Boxes, Stroke]  # boxes of the sample's LIDAR_TOP frame, and how they are drawn
Points = tuple[np.ndarray, np.ndarray, np.ndarray]  # u, v (px of the full image), depth (m), each (n,)

_LOOP = [(i, (i + 1) % 4) for i in range(4)]
EDGES = [*_LOOP, *((i + 4, j + 4) for i, j in _LOOP), *((i, i + 4) for i in range(4))]  # of `Boxes.corners`
NEAR = 0.3  # m in front of a camera, where edges are cut
DEPTHS = 2.0, 60.0  # m, the ends of the scale of colours, which is logarithmic
DARKEST = 0.15  # of the scale of colours, where depth begins
FINER = 2  # lines are drawn so much finer, and then averaged


def rows_of(index: Index, sample: int) -> list[list[int]]:
    """The cameras as one sees them standing in the car: those that look ahead from left to right, then those behind."""
    axes = (index.camera_to_ego[sample] @ np.array([0, 0, 1.0, 0]))[:, :2]
    heading = np.degrees(np.arctan2(axes[:, 1], axes[:, 0]))  # 0 is ahead, 90 to the left
    ahead = [int(c) for c in np.argsort(-heading, kind="stable") if abs(heading[c]) < 90]
    behind = [int(c) for c in np.argsort(heading % 360, kind="stable") if abs(heading[c]) >= 90]
    return [row for row in (ahead, behind) if row]


def camera_tile(
    index: Index,
    dataroot: Path,
    sample: int,
    camera: int,
    width: int,
    layers: Sequence[Layer] = (),
    points: Points | None = None,
) -> Image.Image:
    """One camera's image, `width` px wide. points: drawn by their depth, on grey.

    Raises DataError where the image is gone or damaged.
    """
    full = index.image_size[sample, camera]
    height = round(width * int(full[1]) / int(full[0]))
    pixels = read_image(dataroot / str(index.camera_path[sample, camera]), (width, height))
    if points is not None:
        # Grey, so that colour means depth alone, and of middling lightness, so that both ends of the scale stand out.
        grey = pixels.mean(2, keepdims=True, dtype=np.float32) * 0.45 + 60
        pixels = np.broadcast_to(grey, pixels.shape).astype(np.uint8)
    size = width * FINER, height * FINER
    tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    ratio = size[0] / int(full[0])
    draw = ImageDraw.Draw(tile)
    if points is not None:
        _dots(tile, points, ratio, max(2, round(width / 130)))
    global_to_camera = inverse(index.camera_to_global(sample)[camera])
    lens, line = index.intrinsics[sample, camera], max(2, round(width / 270) * FINER)
    for boxes, stroke in layers:
        for corners in apply(global_to_camera, boxes.levelled(index.lidar_to_global(sample)).corners()):
            for piece in _edges(corners, lens, size, ratio):
                draw_line(draw, piece, stroke, line, casing=True)
    return tile.reduce(FINER)


def named(tile: Image.Image, name: str) -> Image.Image:
    """The tile with a camera's name on it."""
    label(ImageDraw.Draw(tile), (8, 6), name.removeprefix("CAM_").replace("_", " ").lower(), max(11, tile.width // 40))
    return tile


def _edges(corners: np.ndarray, lens: np.ndarray, size: tuple[int, int], ratio: float) -> list[np.ndarray]:
    """The visible lines (2, 2) px of a box's corners (8, 3) in the camera's frame, with one to its front."""
    ends = [(corners[a], corners[b]) for a, b in EDGES]
    ends.append((corners[:4].mean(0), (corners[0] + corners[3]) / 2))
    lines = []
    for a, b in ends:
        if (piece := _in_front(a, b)) is None:
            continue
        uvw = piece @ lens.T
        line = uvw[:, :2] / uvw[:, 2:] * ratio
        if (line.min(0) < size).all() and (line.max(0) > 0).all():  # else it may be far outside
            lines.append(line)
    return lines


def _in_front(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The part (2, 3) of an edge that lies in front of the camera, or None."""
    if max(a[2], b[2]) <= NEAR:
        return None
    if min(a[2], b[2]) >= NEAR:
        return np.stack([a, b])
    near = a + (b - a) * (NEAR - a[2]) / (b[2] - a[2])
    return np.stack([a if a[2] >= NEAR else near, b if b[2] >= NEAR else near])


def _dots(tile: Image.Image, points: Points, ratio: float, size: int) -> None:
    """Squares of `size` px, the far ones first."""
    u, v, depth = points
    order = np.argsort(-depth, kind="stable")
    colours = depth_colours(depth[order])
    pixels = np.asarray(tile).copy()
    x, y = (np.floor(a[order] * ratio - size / 2).astype(np.int64) for a in (u, v))
    for row in range(size):
        for column in range(size):
            inside = (x + column >= 0) & (x + column < tile.width) & (y + row >= 0) & (y + row < tile.height)
            pixels[(y + row)[inside], (x + column)[inside]] = colours[inside]
    tile.paste(Image.fromarray(pixels))


def depth_colours(depth: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 of depths (m): yellow is near, violet far. The scale's darkest colours are left out."""
    return scale(1 - (1 - DARKEST) * depth_scale(depth), PLASMA)


def depth_scale(depth: np.ndarray) -> np.ndarray:
    """0 to 1 from the nearest of DEPTHS to the farthest."""
    low, high = np.log(DEPTHS)
    return (np.log(np.maximum(depth, 1e-3)) - low) / (high - low)
