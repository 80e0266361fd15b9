"""A results file of detections in what `full_world.py` makes: what a scene holds, and what is found in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.names import CATEGORY_TO_CLASS


@dataclass(frozen=True)
class Scene:
    """What is to be found in a scene's S samples, each of N boxes, in the global frame."""

    samples: list[str]
    places: np.ndarray  # (S, 3) of the ego
    boxes: list[dict[str, Any]]
    centers: np.ndarray  # (S, N, 3)
    yaws: np.ndarray  # (N,)
    velocity: np.ndarray  # (2,) m/s, of all


class Results:
    """A results file of a detector that finds most of what is there, not quite where it is, and much that is not."""

    def __init__(self, path: Path, boxes: int):
        self._file, self._boxes, self._first = path.open("w"), boxes, True
        uses = ("camera", "lidar", "radar", "map", "external")
        meta = {f"use_{name}": name == "camera" for name in uses}
        self._file.write(f'{{"meta": {json.dumps(meta)}, "results": {{')

    def add(self, scene: Scene, number: int) -> None:
        random = np.random.default_rng([2, number])
        true = np.array([i for i, box in enumerate(scene.boxes) if box["category"] in CATEGORY_TO_CLASS])
        for sample, place, centers in zip(scene.samples, scene.places, scene.centers):
            found = true[random.random(len(true)) < 0.8]
            other = random.choice(true, self._boxes - len(found))
            which, good = np.concatenate([found, other]), np.arange(self._boxes) < len(found)
            center = centers[which] + random.normal(0, [0.7, 0.7, 0.2], (len(which), 3))
            center[~good, :2] = place[:2] + random.uniform(-50, 50, (len(other), 2))
            yaws = scene.yaws[which] + random.normal(0, 0.3, len(which))
            turns = np.stack([np.cos(yaws / 2), 0 * yaws, 0 * yaws, np.sin(yaws / 2)], 1)
            velocities = scene.velocity + random.normal(0, 0.5, (len(which), 2))
            scores = np.where(good, random.beta(4, 3, len(which)), random.beta(2, 6, len(which)))
            scales = random.uniform(0.85, 1.15, len(which))
            columns = (center.round(4), turns.round(6), velocities.round(4), scores.round(5))
            rows = [
                self._row(sample, scene.boxes[i], scale, *values)
                for i, scale, *values in zip(which.tolist(), scales.tolist(), *(c.tolist() for c in columns))
            ]
            self._file.write(f'{"" if self._first else ", "}"{sample}": [{", ".join(rows)}]')
            self._first = False

    def _row(self, sample, box, scale, center, turn, velocity, score) -> str:  # type: ignore[no-untyped-def]
        size = [round(side * scale, 4) for side in box["size"]]
        attribute = "".join(box["attributes"][:1])
        return (
            f'{{"sample_token": "{sample}", "translation": {center}, "size": {size}, "rotation": {turn}, '
            f'"velocity": {velocity}, "detection_name": "{CATEGORY_TO_CLASS[box["category"]]}", '
            f'"detection_score": {score}, "attribute_name": "{attribute}"}}'
        )

    def close(self) -> None:
        self._file.write("}}")
        self._file.close()
