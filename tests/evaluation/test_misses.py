"""Which boxes were missed and which are false, and that the worst samples come first."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation.ground_truth import ground_truth
from evaluation.misses import misses
from evaluation.picture import PICTURES, draw_worst
from models.boxes import Boxes
from models.names import CLASSES


def moved(boxes: Boxes, shift: np.ndarray, scores: np.ndarray) -> Boxes:
    centers = boxes.centers + np.c_[shift, np.zeros(len(boxes))]
    return Boxes(centers, boxes.sizes, boxes.yaws, boxes.velocities, boxes.labels, scores)


def in_range(index, sample, boxes):
    """Rows of boxes that the evaluation counts."""
    from nuscenes.eval.detection.config import config_factory

    ranges = config_factory("detection_cvpr_2019").class_range
    centers = boxes.moved(index.lidar_to_ego[sample]).centers
    return [i for i, (c, label) in enumerate(zip(centers, boxes.labels)) if np.hypot(*c[:2]) < ranges[CLASSES[label]]]


def test_the_truth_misses_nothing(simulated):
    found = misses(simulated[0], 0, ground_truth(simulated[0], 0))
    assert found.count == 0
    assert (
        len(found.detected) == len(found.correct) == len(in_range(simulated[0], 0, ground_truth(simulated[0], 0))) > 5
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_boxes_match_as_in_a_loop(simulated, seed):
    index, sample = simulated[0], 1
    random = np.random.default_rng(seed)
    truth = ground_truth(index, sample)
    predicted = moved(truth, random.normal(0, 1.5, (len(truth), 2)), random.uniform(0, 1, len(truth)))
    predicted = predicted[np.argsort(-predicted.scores)][: len(truth) - 3]
    found = misses(index, sample, predicted)

    looked_at = in_range(index, sample, predicted)
    looked_at = [i for place, i in enumerate(looked_at) if predicted.scores[i] >= 0.2 or place < 10]
    free = in_range(index, sample, truth)
    right, false = [], []
    for i in looked_at:  # best first
        near = {t: np.hypot(*(truth.centers[t] - predicted.centers[i])[:2]) for t in free}
        near = {t: d for t, d in near.items() if d < 2 and truth.labels[t] == predicted.labels[i]}
        (right if near else false).append(i)
        if near:
            free.remove(min(near, key=near.get))
    assert sorted(found.missed.centers.tolist()) == sorted(truth.centers[free].tolist())
    assert sorted(found.correct.centers.tolist()) == sorted(predicted.centers[right].tolist())
    assert sorted(found.false.centers.tolist()) == sorted(predicted.centers[false].tolist())


def test_boxes_out_of_range_take_nobodys_place(simulated):
    """Ten that the evaluation does not count, better than those that are looked at whatever they score."""
    truth = ground_truth(simulated[0], 0)
    near = truth[in_range(simulated[0], 0, truth)][:5]
    far = moved(truth[np.zeros(10, int)], np.full((10, 2), 500.0), np.full(10, 0.9))
    near = moved(near, np.zeros((5, 2)), np.full(5, 0.1))
    found = misses(simulated[0], 0, Boxes.joined([far, near]))
    assert (len(found.correct), len(found.false)) == (5, 0)


def test_the_worst_samples_are_drawn_first(simulated, tmp_path):
    index = simulated[0]
    few, none = ground_truth(index, 0), ground_truth(index, 2)[:0]
    predicted = {0: few[len(few) // 2 :], 1: ground_truth(index, 1), 2: none}
    draw_worst(tmp_path, index, simulated[1], predicted, 2)
    listed = json.loads((tmp_path / PICTURES).read_text())
    counts = [misses(index, sample, boxes).count for sample, boxes in predicted.items()]
    assert [entry["sample"] for entry in listed] == [str(index.token[s]) for s in np.argsort(counts)[:0:-1]]
    assert sum(listed[0]["missed"].values()) == max(counts)
    assert listed[0]["false"] == {}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [entry["picture"] for entry in listed]
    assert Image.open(tmp_path / "detections_1.png").size[0] > 1440


def test_nothing_predicted_and_nothing_true(simulated):
    empty = Boxes.empty()
    found = misses(simulated[0], 0, moved(empty, np.zeros((0, 2)), np.zeros(0)))
    assert len(found.missed) == found.count > 0
    assert found.by_class()["false"] == {}
    assert sum(found.by_class()["missed"].values()) == found.count
