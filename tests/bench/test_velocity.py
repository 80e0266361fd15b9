"""What a detector says of velocities, read at the true centres."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.boxes import Boxes
from models.center_head import CenterHeadSpec, CenterPointHead
from models.names import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import velocity
from head_limit import perfect
from small_detectors import SIZE, rig

from tasks.finetune.batches import Batch


class Knowing(nn.Module):
    """Says the truth about `boxes` where frames 0 and 1 show different images, and that all stand where they don't."""

    def __init__(self, boxes):
        super().__init__()
        self.head, self.boxes = CenterPointHead(CenterHeadSpec(1, (-8, -8, -5, 8, 8, 3), (1.0, 1.0), width=1)), boxes

    def geometry(self, cameras):
        return cameras

    def forward(self, images, cameras):
        moved = bool((images[:, 0] != images[:, 1]).any())
        targets = self.head.targets(self.boxes)
        for target in targets:
            target.codes[..., -2:] *= moved
        self.head.forward = lambda _: perfect(targets)
        return torch.zeros(1), None


@pytest.fixture
def batch():
    names = ["car", "barrier", "pedestrian", "car", "bus"]
    velocities = np.array([[3, 1], [0, 0], [0, -1.5], [np.nan, np.nan], [9, 9]])
    centers = np.array([[2, 2, 0], [-3, 2, 0], [4, -5, 0], [-6, -6, 0], [50.0, 0, 0]])  # the bus is off the map
    boxes = Boxes(
        centers,
        np.ones((5, 3)),
        np.zeros(5),
        velocities,
        np.array([CLASSES.index(name) for name in names]),
    )
    images = torch.arange(2, dtype=torch.uint8).view(1, 2, 1, 1, 1, 1).expand(1, 2, 3, *SIZE, 3)
    return Batch(np.array([0]), ["token"], images, rig(1, 2, 3), [boxes], None)


def read(batch):
    said, true = map(np.concatenate, zip(*velocity.detected(Knowing(batch.boxes), batch)))
    order = np.lexsort(true.T)
    return said[order], true[order]


def test_only_boxes_on_the_map_whose_velocity_counts_are_read(batch):
    said, true = read(batch)
    assert true.tolist() == [[0, -1.5], [3, 1]]
    assert said.tolist() == true.tolist()


def test_without_the_previous_frame_nothing_moves(batch):
    said, true = read(velocity.without_previous(batch))
    assert said.tolist() == [[0, 0], [0, 0]]
    assert len(true) == 2


def test_the_key_frames_cameras_stand_in_too(batch):
    once = velocity.without_previous(batch)
    for part, before in zip(once.cameras[:3], batch.cameras[:3]):
        assert torch.equal(part[:, 1], before[:, 0])
        assert torch.equal(part[:, 0], before[:, 0])
    assert torch.equal(once.cameras.scene, batch.cameras.scene)


def test_the_mean_error_of_all_and_of_those_that_move():
    told = velocity.line("name", np.zeros((2, 2)), np.array([[3.0, 4.0], [0, 0.3]]))
    assert told.split() == ["name", "2.650", "5.000"]


def test_a_folder_that_is_no_artifact_is_named(tmp_path):
    with pytest.raises(SystemExit, match="is no finished finetune artifact"):
        velocity.measure(tmp_path, tmp_path)
