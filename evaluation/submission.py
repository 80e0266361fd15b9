"""Predictions as an official nuScenes results file, or as flat arrays: the best boxes of each sample, global."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.flat import FlatBoxes
from models.boxes import Boxes
from models.names import CLASSES, MOTION_ATTRIBUTES
from storage.atomic import write_json
from storage.index import Index

RESULTS = "results_nusc.json"  # as stages name it
MAX_BOXES = 500  # a sample; the devkit refuses a file with more
MOVING_SPEED = 0.2  # m/s; from here on a box gets its class's attribute of motion


def write_submission(
    path: Path,
    index: Index,
    predictions: Mapping[int, Boxes],
    attributes: Mapping[int, Sequence[str]] | None = None,
    use_camera: bool = False,
    use_lidar: bool = False,
) -> None:
    """Write the results file, whole or not at all. Arguments as in `submission`."""
    write_json(path, submission(index, predictions, attributes, use_camera, use_lidar))


def submission(
    index: Index,
    predictions: Mapping[int, Boxes],
    attributes: Mapping[int, Sequence[str]] | None = None,
    use_camera: bool = False,
    use_lidar: bool = False,
) -> dict:
    """The results file's content.

    `predictions` maps a sample's index to boxes with scores in its key LIDAR frame; the MAX_BOXES best of each are
    kept. `attributes` names each box's attribute (same order); without it, speed decides. An unknown (NaN) velocity is
    written as zero: JSON has no NaN. Raises ValueError if a centre, size, yaw or score is not finite or a size not
    positive.
    """
    results = {}
    for sample, boxes, names in _best(index, predictions, attributes):
        token = str(index.token[sample])
        results[token] = _records(token, boxes, names)
    sensors = {"use_camera": use_camera, "use_lidar": use_lidar}
    meta = sensors | {"use_radar": False, "use_map": False, "use_external": False}
    return {"meta": meta, "results": results}


def flat_predictions(
    index: Index, predictions: Mapping[int, Boxes], attributes: Mapping[int, Sequence[str]] | None = None
) -> FlatBoxes:
    """The boxes that `submission` writes, in its order, as flat arrays; samples are numbered as in the index."""
    best = _best(index, predictions, attributes)
    return FlatBoxes.joined(FlatBoxes.from_boxes(sample, boxes, names) for sample, boxes, names in best)


def motion_attributes(boxes: Boxes) -> list[str]:
    """The attribute of each box by its class and whether it moves."""
    moving = np.linalg.norm(np.nan_to_num(boxes.velocities), axis=1) > MOVING_SPEED
    return [MOTION_ATTRIBUTES[CLASSES[label]][0 if moves else 1] for label, moves in zip(boxes.labels, moving)]


def _best(
    index: Index, predictions: Mapping[int, Boxes], attributes: Mapping[int, Sequence[str]] | None
) -> Iterator[tuple[int, Boxes, list[str]]]:
    """Each sample's MAX_BOXES best boxes, best first, in the global frame and without NaN, and their attributes."""
    for sample, boxes in predictions.items():
        token = str(index.token[sample])
        names = list(attributes[sample]) if attributes is not None else motion_attributes(boxes)
        scores = boxes.required_scores
        if len(names) != len(boxes):
            raise ValueError(f"sample {token}: {len(names)} attributes for {len(boxes)} boxes")
        rows = np.argsort(-scores, kind="stable")[:MAX_BOXES]
        boxes = boxes[rows].levelled(index.lidar_to_global(sample))
        values = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, scores[rows]])
        if not np.isfinite(values).all() or (boxes.sizes <= 0).any():
            raise ValueError(f"sample {token}: a predicted box is not finite or has a size that is not positive")
        yield sample, replace(boxes, velocities=np.nan_to_num(boxes.velocities)), [names[row] for row in rows]


def _records(token: str, boxes: Boxes, attributes: list[str]) -> list[dict]:
    columns = zip(
        boxes.centers.tolist(),
        boxes.sizes_wlh().tolist(),
        boxes.quaternions().tolist(),
        boxes.velocities.tolist(),
        boxes.labels,
        boxes.required_scores.tolist(),
        attributes,
    )
    return [
        {
            "sample_token": token,
            "translation": center,
            "size": size,
            "rotation": rotation,
            "velocity": velocity,
            "detection_name": CLASSES[label],
            "detection_score": float(score),
            "attribute_name": attribute,
        }
        for center, size, rotation, velocity, label, score, attribute in columns
    ]
