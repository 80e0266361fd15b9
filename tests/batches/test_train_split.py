from types import SimpleNamespace

import numpy as np
import pytest

from batches.train_split import check_boxes, training_samples
from common.errors import UserError


def index(labels, points, categories, split="train"):
    """Two samples; the second has all the boxes but the first one."""
    offsets = [0, min(1, len(labels)), len(labels)]
    return SimpleNamespace(
        version="v1.0-own",
        scene_name=np.array(["a", "b", "c", "d"], object),
        samples=lambda name: np.array([0, 1] if name == split else [], int),
        box_rows=lambda sample: slice(offsets[sample], offsets[sample + 1]),
        box_label=np.array(labels, int),
        box_lidar_points=np.array(points, int),
        box_category=np.array(categories, object),
    )


def test_a_dataset_without_a_train_split_is_told_of_splits():
    made = index([0], [5], ["vehicle.car"])
    assert training_samples(made, "fit").tolist() == [0, 1]
    sentence = r"fit: none of the 4 scenes of v1.0-own \(a, b, c, ...\) is in the train split; .* v1.0-own/splits.json"
    with pytest.raises(UserError, match=sentence):
        training_samples(index([0], [5], ["vehicle.car"], split=""), "fit")


@pytest.mark.parametrize(
    ("labels", "points", "categories", "sentence"),
    [
        (
            [-1, -1, -1],
            [9, 9, 9],
            ["Car", "Van", "Car"],
            r"none of the 3 boxes .* detection class \(Car 2, Van 1\): map",
        ),
        ([], [], [], "there is no box to train on: annotate"),
        (
            [0, -1],
            [2, 9],
            ["vehicle.car", "animal"],
            "none of the 1 boxes to train on has 3 LiDAR points or more: lower fit",
        ),
    ],
)
def test_nothing_to_learn_from_is_said_before_training(labels, points, categories, sentence):
    with pytest.raises(UserError, match=f"^fit: {sentence}"):
        check_boxes(index(labels, points, categories), np.array([0, 1]), 3, "fit")
    check_boxes(index([*labels, 4], [*points, 3], [*categories, "x"]), np.array([0, 1]), 3, "fit")
