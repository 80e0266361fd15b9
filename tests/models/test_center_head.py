import numpy as np
import pytest
import torch

import models.openmmlab  # noqa: F401  (before mmdet3d: it may stand in for mmcv's operators)
from models import nms
from models.boxes import Boxes
from models.center_codes import PARTS, code_losses
from models.center_head import CenterPointHead
from models.center_spec import ONE_GROUP, SIX_GROUPS, CenterHeadSpec, code_weights
from models.names import CLASSES

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
    predictions = []
    for heatmap, codes, cells, used in head.targets(boxes):
        maps = torch.zeros(len(boxes), 10, heatmap[0, 0].numel())
        for b in range(len(boxes)):
            maps[b, :, cells[b, used[b]]] = codes[b, used[b]].nan_to_num().T
        parts = maps.unflatten(2, heatmap.shape[2:]).split(list(PARTS.values()), 1)
        logits = torch.logit(heatmap.clamp(1e-4, 1 - 1e-4))
        predictions.append({name: part.clone() for name, part in zip(PARTS, parts)} | {"heatmap": logits})
    return predictions


@pytest.mark.parametrize("groups", [ONE_GROUP, SIX_GROUPS])
def test_truth_to_targets_and_back(groups):
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, groups, width=8, score_threshold=0.99, min_radius=1))
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
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8))
    boxes = Boxes(np.array([[15.9, -11.9, 0]]), np.ones((1, 3)), np.zeros(1), np.zeros((1, 2)), np.array([0]))
    heat = head.targets([boxes])[0].heatmap
    assert heat.shape[-2:] == head.spec.shape_YX == (30, 40)
    assert heat[0, 0, 0, 39] == 1


def test_unknown_velocity_does_not_poison_the_loss():
    torch.manual_seed(0)
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, SIX_GROUPS, width=8))
    bev = torch.randn(2, 8, 30, 40, requires_grad=True)
    terms = head.loss(head(bev), [some_boxes(0), Boxes.empty()])
    assert set(terms) == {f"task{i}.{kind}" for i in range(6) for kind in ("heatmap", "box")}
    sum(terms.values()).backward()
    assert torch.isfinite(bev.grad).all()
    assert bev.grad.abs().max() > 0


def test_known_velocity_is_learnt_and_unknown_is_not():
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8))
    truth = some_boxes(0)
    predictions = perfect(head, [truth])
    predictions[0]["vel"] += 1.0
    predictions[0]["vel"].requires_grad_()
    head.loss(predictions, [truth])["task0.box"].backward()
    moved = predictions[0]["vel"].grad.abs().amax(1)[0]
    assert (moved > 0).sum() == 8  # of ten boxes two have no velocity


def test_the_squared_loss_of_velocity_is_its_squared_error_and_the_rest_stays_l1():
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8))
    truth = [some_boxes(0), some_boxes(1), Boxes.empty()]
    torch.manual_seed(0)
    truth[0].velocities[1] = [-120.0, 9.0]  # as wrong annotations say
    (maps,), (targets,) = head(torch.randn(3, 8, 30, 40)), head.targets(truth)
    plain = code_losses(maps, targets, torch.tensor(code_weights(0.3)), 0.25)
    squared = code_losses(maps, targets, torch.tensor(code_weights(0.3)), 0.25, velocity_squared=True)
    assert torch.equal(squared[:-2], plain[:-2])
    boxes, error = 0, np.zeros(2)
    for b, slot in targets.used.nonzero().tolist():
        y, x = divmod(targets.cells[b, slot].item(), 40)
        off = maps["vel"][b, :, y, x].detach().numpy() - targets.codes[b, slot, -2:].numpy()
        square = np.where(abs(off) < 10, off**2, 100 + 20 * (abs(off) - 10))
        boxes, error = boxes + 1, error + np.nan_to_num(square)  # an unknown velocity counts as a box, and as no error
    assert boxes == targets.used.sum() > 10
    np.testing.assert_allclose(squared[-2:].detach(), 0.25 * 0.3 * error / boxes, rtol=1e-5)


def test_an_absurd_speed_does_not_outweigh_the_rest():
    """Annotated at 120 m/s, it pulls as hard as an error of 10 m/s, not twelve times as hard."""
    weights = code_weights(1.0)
    head = CenterPointHead(
        CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8, code_weights=weights, velocity_squared=True)
    )
    pulls = {}
    for speed in (1.0, 10.0, 120.0):
        truth = some_boxes(0)
        truth.velocities[:] = 0
        truth.velocities[3, 0] = speed
        maps = perfect(head, [truth])
        maps[0]["vel"] = torch.zeros_like(maps[0]["vel"], requires_grad=True)
        loss = head.loss(maps, [truth])["task0.box"]
        loss.backward()
        pulls[speed] = maps[0]["vel"].grad.abs().max().item()
    assert pulls[10.0] == pytest.approx(10 * pulls[1.0])
    assert pulls[120.0] == pytest.approx(pulls[10.0])


def test_a_head_told_to_learns_velocity_by_its_squared_error():
    truth, terms = [some_boxes(0)], {}
    for squared in (False, True):
        weights = code_weights(1.0)
        head = CenterPointHead(
            CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8, code_weights=weights, velocity_squared=squared)
        )
        predictions = perfect(head, truth)
        predictions[0]["vel"] += 3.0
        terms[squared] = head.loss(predictions, truth)["task0.box"].item()
    assert terms[True] == pytest.approx(3 * terms[False], rel=1e-5)


def test_perfect_predictions_have_the_least_loss():
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8))
    truth = [some_boxes(0)]
    good = head.loss(perfect(head, truth), truth)
    assert good["task0.box"] < 1e-5
    torch.manual_seed(0)
    other = head.loss(head(torch.randn(1, 8, 30, 40)), truth)
    assert other["task0.box"] > 0.1
    assert other["task0.heatmap"] > good["task0.heatmap"]


def test_heatmap_starts_near_a_tenth_and_boxes_outside_are_left_out():
    torch.manual_seed(0)
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8))
    heat = head(torch.zeros(1, 8, 30, 40))[0]["heatmap"].sigmoid()
    assert heat.min() > 0.05
    assert heat.max() < 0.2
    far = some_boxes()
    far.centers[:, 0] += 100
    unlabelled = Boxes(far.centers * 0, far.sizes, far.yaws, far.velocities, np.full(10, -1))
    for boxes in (far, unlabelled):
        (targets,) = head.targets([boxes])
        assert targets.heatmap.max() == 0
        assert not targets.used.any()


def test_of_near_boxes_of_a_class_the_best_stays():
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8, score_threshold=0.3))
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


def mmdet3ds(head: CenterPointHead):
    """The same head by mmdetection3d, with the same weights."""
    from mmdet3d.models.dense_heads.centerpoint_head import CenterHead

    low_x, low_y, _, high_x, high_y, _ = head.spec.bev_range
    kept = [low_x - 10, low_y - 10, -10.0, high_x + 10, high_y + 10, 10.0]
    common = {"out_size_factor": 1, "voxel_size": list(head.spec.cell_size), "pc_range": [low_x, low_y]}
    other = CenterHead(
        in_channels=8,
        tasks=[{"num_class": len(group), "class_names": list(group)} for group in head.class_groups],
        share_conv_channel=8,
        common_heads={name: (channels, 2) for name, channels in PARTS.items()},
        separate_head={"type": "SeparateHead", "init_bias": -2.19, "final_kernel": 3},
        loss_bbox={"type": "mmdet.L1Loss", "reduction": "mean", "loss_weight": 0.25},
        bbox_coder=common
        | {"type": "CenterPointBBoxCoder", "max_num": 500, "score_threshold": 0.1, "post_center_range": kept},
        train_cfg=common
        | {
            "grid_size": list(head.spec.shape_YX[::-1]),
            "point_cloud_range": RANGE,
            "max_objs": 500,
            "dense_reg": 1,
            "gaussian_overlap": 0.1,
            "min_radius": 2,
            "code_weights": [1.0] * 8 + [0.2] * 2,
        },
    )
    other.load_state_dict(head.net.state_dict())
    return other.eval()


@pytest.mark.parametrize("groups", [ONE_GROUP, SIX_GROUPS])
def test_weights_maps_and_losses_are_those_of_mmdetection3ds(groups):
    from mmdet3d.structures import LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, groups, width=8)).eval()
    other, bev = mmdet3ds(head), torch.randn(2, 8, 30, 40)
    maps = head(bev)
    for ours, theirs in zip(maps, other.forward_single(bev)):
        assert list(ours) == list(theirs)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name])

    names = [name for group in groups for name in group]
    truth, theirs = [some_boxes(0), some_boxes(1)], []
    for boxes in truth:
        boxes.velocities[:] = 0.5  # mmdetection3d's loss is NaN where one is unknown
        rows = torch.from_numpy(np.c_[boxes.centers, boxes.sizes, boxes.yaws, boxes.velocities]).float()
        labels = torch.tensor([names.index(CLASSES[label]) for label in boxes.labels])
        theirs.append(InstanceData(bboxes_3d=LiDARInstance3DBoxes(rows, 9, origin=(0.5, 0.5, 0.5)), labels_3d=labels))
    terms = head.loss(maps, truth)
    wanted = other.loss_by_feat([[dict(group)] for group in maps], theirs)  # turns logits into probabilities in place
    for number in range(len(groups)):
        for ours, name in (("heatmap", "loss_heatmap"), ("box", "loss_bbox")):
            torch.testing.assert_close(terms[f"task{number}.{ours}"], wanted[f"task{number}.{name}"])


def test_a_group_learns_from_its_first_boxes_and_a_box_without_a_size_leaves_its_slot_empty():
    head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, (CLASSES[::-1],), width=8, slots=4))
    centers = np.array([[0.2, 0.2, 0], [5.2, 0, 0], [-5.2, 0, 0], [0, 5.2, 0], [0, -5.2, 0]])
    boxes = Boxes(centers, np.ones((5, 3)), np.zeros(5), np.zeros((5, 2)), np.array([0, 9, 0, 9, 5]))
    boxes.sizes[1, 1] = 0
    (targets,) = head.targets([boxes])
    assert targets.used.tolist() == [[False, True, True, True]]  # cones come first here: 1, 3, then 4, 0; 2 is left out
    assert targets.cells[0, 1:].tolist() == [21 * 40 + 20, 8 * 40 + 20, 15 * 40 + 20]
    assert targets.heatmap[0, 0].eq(1).sum() == 1
    assert targets.heatmap[0, 9].eq(1).nonzero().tolist() == [[15, 20]]


def test_rules_must_name_every_class_once():
    with pytest.raises(ValueError, match=r"once: car$"):
        CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, rules=(*nms.CENTERPOINT, nms.CircleNms(("car",), 1.0)))
    with pytest.raises(ValueError, match=r"once: bus, trailer$"):
        CenterHeadSpec(8, RANGE, CELL, (("bus", "trailer"),), rules=(nms.CircleNms(("car",), 1.0),))


def test_other_rules_leave_other_boxes():
    """Two pedestrians a metre apart are two by their circles, and one by their outlines grown by half, as in BEVDet."""
    two = Boxes(
        np.array([[0.4, 0.4, 0], [1.3, 0.4, 0]]),
        np.full((2, 3), 0.9),
        np.zeros(2),
        np.zeros((2, 2)),
        np.array([8, 8]),
    )
    for rules, count in ((nms.CENTERPOINT, 2), (nms.BEVDET, 1)):
        head = CenterPointHead(CenterHeadSpec(8, RANGE, CELL, ONE_GROUP, width=8, score_threshold=0.9, rules=rules))
        (found,) = head.predict(perfect(head, [two]))
        assert len(found) == count
        np.testing.assert_allclose(found.sizes, 0.9, atol=1e-6)
