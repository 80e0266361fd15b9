import numpy as np
import pytest
import torch

from models.boxes import Boxes
from models.center_head import ONE_GROUP, SIX_GROUPS, CenterPointHead

RANGE = (-16.0, -12.0, -5.0, 16.0, 12.0, 3.0)
CELL = (0.8, 0.8)


def some_boxes(seed: int = 0) -> Boxes:
    """One box of each class, far enough apart that none suppresses another; the last two have no velocity."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(-12, 13, 6.0), [-6.0, 6.0]), -1).reshape(-1, 2)
    velocity = random.normal(size=(10, 2))
    velocity[8:] = np.nan
    return Boxes(
        centers=np.c_[grid + random.uniform(-1, 1, (10, 2)), random.uniform(-2, 0, 10)],
        sizes=random.uniform(0.4, 6, (10, 3)),
        yaws=random.uniform(-np.pi, np.pi, 10),
        velocities=velocity,
        labels=random.permutation(10),
    )


def perfect(head: CenterPointHead, boxes: list[Boxes]) -> list[dict[str, torch.Tensor]]:
    """The predictions that say exactly what the head's own targets ask for."""
    heatmaps, annotations, places, masks = head.net.get_targets([head._instances(b) for b in boxes])
    predictions = []
    for heat, rows, place, mask in zip(heatmaps, annotations, places, masks):
        batch, _, height, width = heat.shape
        maps = torch.zeros(batch, 10, height * width)
        for b in range(batch):
            used = mask[b].bool()
            maps[b, :, place[b, used]] = rows[b, used].T
        maps = maps.view(batch, 10, height, width).nan_to_num()
        names = {"reg": (0, 2), "height": (2, 3), "dim": (3, 6), "rot": (6, 8), "vel": (8, 10)}
        parts = {name: maps[:, a:b].clone() for name, (a, b) in names.items()}
        predictions.append(parts | {"heatmap": torch.logit(heat.clamp(1e-4, 1 - 1e-4))})
    return predictions


@pytest.mark.parametrize("groups", [ONE_GROUP, SIX_GROUPS])
def test_truth_to_targets_and_back(groups):
    head = CenterPointHead(8, RANGE, CELL, groups, width=8, score_threshold=0.99, min_radius=1)
    truth = [some_boxes(0), some_boxes(1)]
    for boxes, found in zip(truth, head.predict(perfect(head, truth))):
        assert len(found) == 10
        found = found[np.argsort(found.labels)]
        boxes = boxes[np.argsort(boxes.labels)]
        np.testing.assert_array_equal(found.labels, boxes.labels)
        np.testing.assert_allclose(found.centers, boxes.centers, atol=1e-5)
        np.testing.assert_allclose(found.sizes, boxes.sizes, rtol=1e-5)
        np.testing.assert_allclose(np.cos(found.yaws - boxes.yaws), 1, atol=1e-6)
        known = np.isfinite(boxes.velocities)
        np.testing.assert_allclose(found.velocities[known], boxes.velocities[known], atol=1e-6)


def test_x_is_the_last_dimension():
    head = CenterPointHead(8, RANGE, CELL, ONE_GROUP, width=8)
    boxes = Boxes(np.array([[15.9, -11.9, 0]]), np.ones((1, 3)), np.zeros(1), np.zeros((1, 2)), np.array([0]))
    (heat,), *_ = head.net.get_targets([head._instances(boxes)])
    assert heat.shape[-2:] == head.shape_YX == (30, 40)
    assert heat[0, 0, 0, 39] == 1


def test_unknown_velocity_does_not_poison_the_loss():
    torch.manual_seed(0)
    head = CenterPointHead(8, RANGE, CELL, SIX_GROUPS, width=8)
    bev = torch.randn(2, 8, 30, 40, requires_grad=True)
    terms = head.loss(head(bev), [some_boxes(0), Boxes.empty()])
    assert set(terms) == {f"task{i}.{kind}" for i in range(6) for kind in ("heatmap", "box")}
    sum(terms.values()).backward()
    assert torch.isfinite(bev.grad).all()
    assert bev.grad.abs().max() > 0


def test_known_velocity_is_learnt_and_unknown_is_not():
    head = CenterPointHead(8, RANGE, CELL, ONE_GROUP, width=8)
    truth = some_boxes(0)
    predictions = perfect(head, [truth])
    predictions[0]["vel"] += 1.0
    predictions[0]["vel"].requires_grad_()
    head.loss(predictions, [truth])["task0.box"].backward()
    moved = predictions[0]["vel"].grad.abs().amax(1)[0]
    assert (moved > 0).sum() == 8  # of ten boxes two have no velocity


def test_perfect_predictions_have_the_least_loss():
    head = CenterPointHead(8, RANGE, CELL, ONE_GROUP, width=8)
    truth = [some_boxes(0)]
    good = head.loss(perfect(head, truth), truth)
    assert good["task0.box"] < 1e-5
    torch.manual_seed(0)
    other = head.loss(head(torch.randn(1, 8, 30, 40)), truth)
    assert other["task0.box"] > 0.1
    assert other["task0.heatmap"] > good["task0.heatmap"]


def test_heatmap_starts_near_a_tenth_and_boxes_outside_are_left_out():
    torch.manual_seed(0)
    head = CenterPointHead(8, RANGE, CELL, ONE_GROUP, width=8)
    heat = head(torch.zeros(1, 8, 30, 40))[0]["heatmap"].sigmoid()
    assert heat.min() > 0.05
    assert heat.max() < 0.2
    far = some_boxes()
    far.centers[:, 0] += 100
    unlabelled = Boxes(far.centers * 0, far.sizes, far.yaws, far.velocities, np.full(10, -1))
    for boxes in (far, unlabelled):
        (heat,), *_ = head.net.get_targets([head._instances(boxes)])
        assert heat.max() == 0


def test_of_near_boxes_of_a_class_the_best_stays():
    head = CenterPointHead(8, RANGE, CELL, ONE_GROUP, width=8, score_threshold=0.3)
    two = Boxes(
        np.array([[0.4, 0.4, 0], [1.6, 0.4, 0], [0.4, 0.4, 0]]),
        np.ones((3, 3)),
        np.zeros(3),
        np.zeros((3, 2)),
        np.array([0, 0, 8]),
    )
    predictions = perfect(head, [two])
    predictions[0]["heatmap"][0, 0] -= 20.0
    predictions[0]["heatmap"][0, 0, 15, 20] = 2.0
    predictions[0]["heatmap"][0, 0, 15, 22] = 1.0
    (found,) = head.predict(predictions)
    cars = found[found.labels == 0]
    assert len(cars) == 1
    assert cars.centers[0, 0] == pytest.approx(0.4)
    assert (found.labels == 8).any()  # a pedestrian in the car's circle stays
    assert (np.diff(found.scores) <= 0).all()
