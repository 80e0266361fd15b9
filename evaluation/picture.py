"""Predicted and true boxes on a sample's images and seen from above: right, false, found and missed."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataroot.points import load_points
from evaluation.misses import Misses, misses
from models.boxes import Boxes
from pictures.above import above, front_of, reach_of
from pictures.cameras import camera_tile
from pictures.palette import GREEN, LIGHT, PURPLE, SKY, VERMILLION
from pictures.sheet import sheet
from pictures.strokes import Stroke
from storage.atomic import write_bytes, write_json
from storage.index import Index

PICTURES = "detections.json"
# Field of `Misses` -> its words in the legend, and how it is drawn.
LEGEND: dict[str, tuple[str, Stroke]] = {
    "detected": ("true, found", Stroke(GREEN)),
    "missed": ("true, missed", Stroke(VERMILLION)),
    "correct": ("predicted, right", Stroke(SKY, dashed=True)),
    "false": ("predicted, false", Stroke(PURPLE, dashed=True)),
}
WIDTH = 1920  # px of a picture


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
    """Write a PNG: the images in two rows, and the scene from above, true and predicted boxes in each."""
    layers = [(getattr(misses, name), stroke) for name, (_, stroke) in LEGEND.items()]
    points = load_points(index, dataroot, sample, 0) if index.has_lidar else None
    reach = reach_of(np.concatenate([boxes.centers for boxes, _ in layers]))
    picture = sheet(
        index,
        sample,
        lambda camera, width: camera_tile(index, dataroot, sample, camera, width, layers),
        lambda size: above(size, reach, layers, points, front=front_of(index, sample)),
        f"{index.scene_name[index.scene[sample]]}   {index.token[sample]}",
        [(f"{words} ({len(boxes)})", stroke) for (boxes, stroke), (words, _) in zip(layers, LEGEND.values())],
        LIGHT,
        WIDTH,
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    write_bytes(path, file.getvalue())
