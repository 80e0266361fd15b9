"""The maps that velocity is read from, drawn and lifted, and what is learnt from them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.boxes import Boxes
from models.names import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import velocity_limit
from velocity_limit import Sample, drawn, limit, trained


def cars(centers, velocities):
    count = len(centers)
    return Boxes(
        np.c_[np.asarray(centers, float), np.zeros(count)],
        np.tile([4.0, 2.0, 1.5], (count, 1)),
        np.zeros(count),
        np.asarray(velocities, float),
        np.full(count, CLASSES.index("car")),
    )


def test_a_drawn_box_peaks_at_its_centre_and_is_smeared_along_the_ray():
    maps = drawn(cars([[4.5, 0.5]], [[0, 0]]), reach=8, cell=1.0, smear=2.0)
    (car,) = maps[[CLASSES.index("car")]]
    assert maps.sum() == car.sum()
    assert np.unravel_index(car.argmax(), car.shape) == (8, 12)
    assert car[8, 14] > 2 * car[10, 12]  # two metres on along the ray against two across
    sharp = drawn(cars([[4.5, 0.5]], [[0, 0]]), reach=8, cell=1.0, smear=0.0)
    assert sharp.max() == pytest.approx(1, abs=1e-3)
    assert car.max() < 0.5


def moving(count, random):
    """Samples of three cars that drive along x, one way or the other, so that no single map tells which."""
    out = []
    for _ in range(count):
        places = random.permutation([-5.5, 0.5, 5.5])
        now = np.c_[random.uniform(-4, 4, 3), places]
        speed = np.c_[random.choice([-6.0, 6.0], 3), np.zeros(3)]
        maps = [drawn(cars(now - seconds * speed, speed), 8, 1.0, 0.0) for seconds in (0, 0.5)]
        out.append(Sample(torch.stack(maps), cars(now, speed)))
    return out


def test_only_the_previous_frame_tells_which_way_cars_drive():
    random = np.random.default_rng(0)
    found = limit(moving(64, random), moving(16, random), 8, 1.0, steps=120, squared=True)
    error = {
        name: np.linalg.norm(np.concatenate([said - true for said, true in pairs]), axis=1).mean()
        for name, pairs in found.items()
    }
    assert error["2 frames"] < 3
    assert error["1 frame"] > 4.5
    assert error["2 frames, key frame twice"] > 4.5


def test_training_is_repeatable():
    samples = moving(4, np.random.default_rng(0))
    first, again = (trained(2, samples, 8, 1.0, 2, squared=False).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_mirrored_scene_is_what_the_mirrored_boxes_draw():
    boxes, speed = cars([[4.5, 1.5], [-2.5, -5.5]], [[3, 1], [0, -2]]), np.array([[3, 1], [0, -2]])
    sample = Sample(torch.stack([drawn(boxes, 8, 1.0, 1.0)] * 2), boxes)
    once = velocity_limit.mirrored(sample, (True, False))
    torch.testing.assert_close(once.maps[1], drawn(once.boxes, 8, 1.0, 1.0))
    assert once.boxes.centers[:, :2].tolist() == [[-4.5, 1.5], [2.5, -5.5]]
    np.testing.assert_allclose(once.boxes.velocities, speed * [-1, 1])
    again = velocity_limit.mirrored(velocity_limit.mirrored(sample, (False, True)), (False, True))
    assert torch.equal(again.maps, sample.maps)
    np.testing.assert_allclose(again.boxes.velocities, speed)
