"""CPU time of rotated and circle NMS of one sample's boxes, against box by box in plain Python.

    python bench/nms.py [--boxes 500] [--repeat 5]

Plain Python clips one outline by the sides of the other (Sutherland and Hodgman) and looks only at pairs that matter: a
box against those that already stay. Both must leave the same boxes. Medians of runs in turn.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import nms
from models.boxes import Boxes
from models.names import CLASSES

Point = tuple[float, float]


def outline(x: float, y: float, length: float, width: float, yaw: float) -> list[Point]:
    c, s = math.cos(yaw), math.sin(yaw)
    corners = ((1, 1), (-1, 1), (-1, -1), (1, -1))
    return [(x + (i * length * c - j * width * s) / 2, y + (i * length * s + j * width * c) / 2) for i, j in corners]


def area(polygon: list[Point]) -> float:
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, polygon[1:] + polygon[:1])) / 2


def overlap(one: list[Point], other: list[Point]) -> float:
    """Intersection over union of two convex outlines, counter-clockwise."""
    common = one
    for a, b in zip(other, other[1:] + other[:1]):
        sides = [(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in common]
        clipped = []
        for p, q, at_p, at_q in zip(common, common[1:] + common[:1], sides, sides[1:] + sides[:1]):
            if at_p >= 0:
                clipped.append(p)
            if at_p * at_q < 0:
                share = at_p / (at_p - at_q)
                clipped.append((p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share))
        common = clipped
    shared = area(common)
    return shared / (area(one) + area(other) - shared)


def plain_rotated(boxes: Boxes, rule: nms.RotatedNms) -> list[int]:
    factors = [rule.scales[CLASSES[label]] for label in boxes.labels]
    rows = zip(boxes.centers.tolist(), boxes.sizes.tolist(), boxes.yaws.tolist(), factors)
    outlines = [outline(c[0], c[1], s[0] * f, s[1] * f, yaw) for c, s, yaw, f in rows]
    kept: list[int] = []
    for i in np.argsort(-boxes.scores, kind="stable").tolist():
        if all(overlap(outlines[i], outlines[j]) <= rule.overlap for j in kept):
            kept.append(i)
    return kept[: rule.most]


def plain_circle(boxes: Boxes, rule: nms.CircleNms) -> list[int]:
    centers, kept = boxes.centers.tolist(), []
    for i in np.argsort(-boxes.scores, kind="stable").tolist():
        if all(math.dist(centers[i][:2], centers[j][:2]) > rule.radius for j in kept):
            kept.append(i)
    return kept[: rule.most]


def crowd(count: int, seed: int = 0) -> Boxes:
    """Boxes as an uncertain head says them: five or so around each object."""
    random = np.random.default_rng(seed)
    objects = random.integers(0, max(1, count // 5), count)
    place = random.uniform(-50, 50, (objects.max() + 1, 2))[objects] + random.normal(0, 0.8, (count, 2))
    labels = random.integers(0, 10, objects.max() + 1)[objects]
    sizes = np.array([[4.6, 2, 1.7], [7, 2.5, 2.8], [6.5, 2.8, 3.2], [11, 3, 3.5], [12, 3, 3.9]])
    sizes = np.concatenate([sizes, [[0.5, 2.5, 1], [2.1, 0.8, 1.5], [1.7, 0.6, 1.3], [0.7, 0.7, 1.8], [0.4, 0.4, 1]]])
    yaws = random.uniform(-np.pi, np.pi, objects.max() + 1)[objects] + random.normal(0, 0.2, count)
    centers = np.c_[place, np.zeros(count)]
    return Boxes(centers, sizes[labels], yaws, np.zeros((count, 2)), labels, random.permutation(count) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    boxes = crowd(args.boxes)
    circle = nms.CircleNms(CLASSES, 1.0)
    for name, rule, plain in (("rotated", nms.BEVDET[0], plain_rotated), ("circle", circle, plain_circle)):
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(args.repeat):
            for who, run in (("ours", rule.keep), ("plain", lambda b, plain=plain, rule=rule: plain(b, rule))):
                start = time.process_time()
                kept = list(run(replace(boxes)))
                times[who].append(time.process_time() - start)
                if who == "ours":
                    wanted = kept
            if kept != wanted:
                sys.exit(f"{name}: the two leave different boxes")
        ours, slow = (float(np.median(times[who])) * 1e3 for who in ("ours", "plain"))
        ratio = f"{slow / ours:.1f} times"
        print(f"{name:<8} {len(boxes)} boxes, {len(wanted)} stay: {ours:.1f} ms, plain Python {slow:.1f} ms, {ratio}")


if __name__ == "__main__":
    main()
