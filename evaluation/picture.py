"""Predicted and true boxes on a sample's six images and seen from above: right, false, found and missed."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dataroot.images import read_image
from evaluation.misses import Misses, misses
from models.boxes import Boxes
from models.geometry import apply, inverse
from models.names import CAMERAS
from storage.atomic import write_bytes, write_json
from storage.index import Index

Colour = tuple[int, int, int]

PICTURES = "detections.json"
# Field of `Misses` -> its words in the legend, and colour.
LEGEND: dict[str, tuple[str, Colour]] = {
    "detected": ("true, found", (60, 220, 90)),
    "missed": ("true, missed", (255, 60, 60)),
    "correct": ("predicted, right", (255, 170, 60)),
    "false": ("predicted, false", (200, 90, 255)),
}
VIEWS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
_LOOP = [(i, (i + 1) % 4) for i in range(4)]
EDGES = [*_LOOP, *((i + 4, j + 4) for i, j in _LOOP), *((i, i + 4) for i in range(4))]  # of `Boxes.corners`
TILE_WIDTH = 480  # px of each image in the picture
BEV_RANGES = 15.0, 54.0  # m from the middle to the edge of the view from above, as far as there are boxes
NEAR = 0.3  # m in front of a camera, where edges are cut


def draw_worst(folder: Path, index: Index, dataroot: Path, predicted: Mapping[int, Boxes], most: int) -> None:
    """Write `detections_1.png` and so on of at most so many samples, those with most missed and false boxes first.

    `detections.json` beside them says of each what sample it is, how many boxes were missed and false, and of which
    classes. predicted: sample -> boxes in its LIDAR_TOP frame, with scores.
    """
    of_sample = {sample: misses(index, sample, boxes) for sample, boxes in predicted.items()}
    worst = sorted(of_sample, key=lambda sample: (-of_sample[sample].count, sample))[:most]
    listed: list[dict[str, Any]] = []
    for place, sample in enumerate(worst, 1):
        path = folder / f"detections_{place}.png"
        draw_detections(path, index, dataroot, sample, of_sample[sample])
        scene = str(index.scene_name[index.scene[sample]])
        listed.append({"picture": path.name, "sample": str(index.token[sample]), "scene": scene})
        listed[-1] |= of_sample[sample].by_class()
    write_json(folder / PICTURES, listed)


def draw_detections(path: Path, index: Index, dataroot: Path, sample: int, misses: Misses) -> None:
    """Write a PNG: six images in two rows, and the scene from above, true and predicted boxes in each.

    Of the true ones those that were found are green and those that were missed red; of the predicted ones those that
    are right are orange and those that are false violet.
    """
    layers = [(getattr(misses, name), colour) for name, (_, colour) in LEGEND.items()]
    views = two_rows([camera_tile(index, dataroot, sample, CAMERAS.index(name), layers) for name in VIEWS])
    bev = _bev_tile(layers, views.height)
    out = Image.new("RGB", (views.width + bev.width, views.height))
    out.paste(views, (0, 0))
    out.paste(bev, (views.width, 0))
    file = io.BytesIO()
    out.save(file, "PNG")
    write_bytes(path, file.getvalue())


def camera_tile(
    index: Index, dataroot: Path, sample: int, camera: int, layers: Sequence[tuple[Boxes, Colour]]
) -> Image.Image:
    """One camera's image, TILE_WIDTH wide, with boxes of the sample's LIDAR_TOP frame, each layer in its colour."""
    image = Image.fromarray(read_image(dataroot / str(index.camera_path[sample, camera])))
    scale = TILE_WIDTH / image.width
    image = image.resize((TILE_WIDTH, round(image.height * scale)), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    global_to_camera = inverse(index.camera_to_global(sample)[camera])
    for boxes, colour in layers:
        for corners in apply(global_to_camera, boxes.levelled(index.lidar_to_global(sample)).corners()):
            for a, b in EDGES:
                if (line := _in_front(corners[a], corners[b])) is not None:
                    uvw = line @ index.intrinsics[sample, camera].T
                    draw.line([tuple(p) for p in (uvw[:, :2] / uvw[:, 2:] * scale).tolist()], colour, 2)
    draw.text((6, 4), CAMERAS[camera], (255, 255, 255))
    return image


def two_rows(tiles: Sequence[Image.Image]) -> Image.Image:
    """Six images of TILE_WIDTH, three a row; a row is as high as its highest, lower ones stand in its middle."""
    rows = tiles[:3], tiles[3:]
    heights = [max(tile.height for tile in row) for row in rows]
    out = Image.new("RGB", (3 * TILE_WIDTH, sum(heights)))
    for row, top, height in zip(rows, (0, heights[0]), heights):
        for column, tile in enumerate(row):
            out.paste(tile, (column * TILE_WIDTH, top + (height - tile.height) // 2))
    return out


def _in_front(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The part (2, 3) of an edge that lies in front of the camera, or None."""
    if max(a[2], b[2]) <= NEAR:
        return None
    if min(a[2], b[2]) >= NEAR:
        return np.stack([a, b])
    near = a + (b - a) * (NEAR - a[2]) / (b[2] - a[2])
    return np.stack([a if a[2] >= NEAR else near, b if b[2] >= NEAR else near])


def _bev_tile(layers: Sequence[tuple[Boxes, Colour]], size: int) -> Image.Image:
    """From above, the car's front up: LIDAR_TOP has x to the right and y to the front."""
    image = Image.new("RGB", (size, size), (18, 18, 22))
    draw = ImageDraw.Draw(image)
    farthest = max(float(np.abs(boxes.centers[:, :2]).max(initial=0)) for boxes, _ in layers)
    span = float(np.clip(farthest + 3, *BEV_RANGES))

    def pixels(xy: np.ndarray) -> list[tuple[float, float]]:
        return [tuple(p) for p in ((xy * [1, -1] / span + 1) * size / 2).tolist()]

    for metres in (10, 20, 30, 40, 50):
        draw.ellipse(pixels(np.array([[-metres, metres], [metres, -metres]])), outline=(52, 52, 60))
    draw.polygon(pixels(np.array([[-0.9, -2], [0.9, -2], [0.9, 2], [-0.9, 2]])), outline=(220, 220, 220))
    for boxes, colour in layers:
        for corners in boxes.corners()[:, :4, :2]:
            draw.polygon(pixels(corners), outline=colour)
            front = pixels(np.stack([corners.mean(0), (corners[0] + corners[3]) / 2]))
            draw.line(front, colour)
    for line, (words, colour) in enumerate(LEGEND.values()):
        draw.text((8, 6 + 14 * line), words, colour)
    draw.text((8, 62), "rings every 10 m", (150, 150, 150))
    return image
