"""CenterHead (centerhead_targets): annotations, targets, losses with their gradients, decoding and suppression."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batches.lidar import SceneDraw, augmented
from models.boxes import Boxes
from models.center_codes import PARTS, Targets
from models.center_head import CenterPointHead, Predictions
from models.geometry import inverse, quaternion_to_rotation, transform
from models.layouts import without_prefix
from models.names import CATEGORY_TO_CLASS, CLASSES
from models.public.center_head import read_center_head
from models.public.used import Used
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance, norms

BOXES, SCORES, RAW = Tolerance(1e-4), Tolerance(2e-5), Tolerance(2e-5, bf16=0.02)
LOSS = Tolerance(relative=1e-5)
GRADIENTS = 1e-4  # relative
# Of what comes out of the network; the other losses and gradients are those of stored maps.
NET_LOSS = Tolerance(relative=1e-5, bf16=0.03)
NET_GRADIENTS = Tolerance(of_max=1e-4, bf16=0.05)

# The losses' names in the original, and the numbers of a box code that each is of.
_TERMS = {"xy": (0, 2), "z": (2, 3), "whl": (3, 6), "yaw": (6, 8), "vel": (8, 10)}


def head_of(config: dict[str, Any]) -> CenterPointHead:
    """The head of a file's three parts, its weights untouched."""
    parts = (Used(config[name], name) for name in ("head", "train", "test"))
    return CenterPointHead(read_center_head(*parts)).eval()


def boxes_of(rows: np.ndarray, labels: np.ndarray, origin: float) -> Boxes:
    """Boxes of rows (N, 9) x, y, z, l, w, h, yaw, vx, vy. origin: 0 where z is the bottom's, 0.5 the centre's."""
    rows = rows.astype(np.float64)
    centers = rows[:, :3] + np.array([0, 0, 0.5 - origin]) * rows[:, 3:6]
    return Boxes(centers, rows[:, 3:6], rows[:, 6], rows[:, 7:], labels.astype(np.int64))


def rows_of(boxes: Boxes, origin: float) -> np.ndarray:
    centers = boxes.centers - np.array([0, 0, 0.5 - origin]) * boxes.sizes
    return np.c_[centers, boxes.sizes, boxes.yaws, boxes.velocities]


def same_turn(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows with yaws in the turn of the wanted ones."""
    if rows.shape == wanted.shape:
        rows[..., 6] += 2 * np.pi * np.round((wanted[..., 6] - rows[..., 6]) / (2 * np.pi))
    return rows


# --- annotations and their augmentation -------------------------------------------------------------------------------


def annotations(oracle: Oracle) -> Iterator[Output]:
    def annos(name: str) -> np.ndarray:
        return oracle.array(f"annos/{name}")

    pose = transform(
        quaternion_to_rotation(annos("cam_front_ego2global_rotation_wxyz")), annos("cam_front_ego2global_translation")
    )
    names = [CATEGORY_TO_CLASS.get(category) for category in annos("category").tolist()]
    labels = np.array([-1 if name is None else CLASSES.index(name) for name in names])
    boxes = Boxes.from_nuscenes(annos("translation"), annos("size"), annos("rotation_wxyz"), annos("velocity"), labels)
    boxes = boxes[(labels >= 0) & (annos("num_pts") > 0)].moved(inverse(pose))
    wanted = annos("ego_boxes")
    rows = same_turn(rows_of(boxes, 0.5), wanted)
    yaw = [6]
    yield Output("annos/ego_boxes", np.delete(rows, yaw, 1), Tolerance(1e-6), np.delete(wanted, yaw, 1))
    # Upstream tilts boxes with the ego and takes their yaws from quaternions; ours stand upright, as in the evaluation.
    ups = np.append(quaternion_to_rotation(annos("rotation_wxyz"))[:, 2, 2], pose[2, 2])
    tilt = 2 * np.arccos(ups.min().clip(-1, 1))
    yield Output("annos/ego_boxes (yaw)", rows[:, yaw], Tolerance(1e-6 + tilt**2), wanted[:, yaw])
    yield Output("annos/ego_labels", boxes.labels, EQUAL)


def truth(oracle: Oracle) -> Iterator[Output]:
    """The annotations after each sample's BEV augmentation, and what lies in the map's range of it."""
    low, high = np.split(np.array(oracle.config["one"]["train"]["point_cloud_range"]), 2)
    start = boxes_of(oracle.array("annos/ego_boxes"), oracle.array("annos/ego_labels"), 0.5)
    for b in oracle.below("gt/all"):
        rotate, scale, flip_x, flip_y = oracle.array(f"gt/draw{b}").tolist()
        matrix = SceneDraw(np.deg2rad(rotate), scale, bool(flip_x), bool(flip_y)).matrix()
        yield Output(f"gt/bda{b}", matrix, Tolerance(1e-6))
        _, boxes = augmented(np.zeros((0, 5), np.float32), start, matrix)
        everything, wanted = oracle.array(f"gt/all{b}"), oracle.array(f"gt/boxes{b}")
        yield Output(f"gt/all{b}", same_turn(rows_of(boxes, 0), everything), BOXES)
        inside = boxes.centred_in(low[:2], high[:2])
        yield Output(f"gt/in_range{b}", inside, EQUAL)
        kept = boxes[inside]
        yield Output(f"gt/boxes{b}", same_turn(rows_of(kept, 0), wanted), BOXES)
        yield Output(f"gt/gravity_center{b}", kept.centers, BOXES)
        yield Output(f"gt/labels{b}", kept.labels, EQUAL)


# --- targets, losses --------------------------------------------------------------------------------------------------


def stored_truth(oracle: Oracle, name: str) -> list[Boxes]:
    """name: "" or "six_"."""
    count = len(oracle.below(f"gt/{name}boxes"))
    return [boxes_of(oracle.array(f"gt/{name}boxes{b}"), oracle.array(f"gt/{name}labels{b}"), 0) for b in range(count)]


def target_outputs(oracle: Oracle, group: str, targets: list[Targets]) -> Iterator[Output]:
    for number, (heatmap, codes, cells, used) in enumerate(targets):
        key = f"{group}/t{number}"
        place = oracle[f"{key}_heatmap_index"].long()
        slots = oracle.array(f"{key}_mask").shape[1]
        yield Output(f"{key}_heatmap_shape", heatmap.shape, EQUAL)
        yield Output(f"{key}_heatmap_index", heatmap.nonzero(), EQUAL)
        yield Output(f"{key}_heatmap_value", heatmap[place.unbind(1)], Tolerance(1e-6))
        yield Output(f"{key}_anno_box", codes[:, :slots], Tolerance(1e-5))
        yield Output(f"{key}_ind", cells[:, :slots], EQUAL)
        yield Output(f"{key}_mask", used[:, :slots], EQUAL)
        yield Output(f"{key}_mask (slots behind)", used[:, slots:].sum(), EQUAL, 0)
        yield Output(f"{key}_max_objs", used.shape[1], EQUAL)


def losses_of(head: CenterPointHead, predictions: Predictions, targets: list[Targets]) -> dict[str, Tensor]:
    """The losses by their names in the original."""
    terms = {}
    for number, (maps, wanted) in enumerate(zip(predictions, targets)):
        codes = head.code_losses(maps, wanted)
        for name, (first, end) in _TERMS.items():
            terms[f"task{number}.loss_{name}"] = codes[first:end].sum()
        terms[f"task{number}.loss_heatmap"] = head.heatmap_loss(maps, wanted)
    return terms


def loss_outputs(oracle: Oracle, group: str, terms: dict[str, Tensor]) -> Iterator[Output]:
    names = oracle.below(group)
    yield Output(f"{group}*", [float(terms[name]) for name in names], LOSS, [float(oracle[group + n]) for n in names])


def one_group(oracle: Oracle) -> Iterator[Output]:
    """One head of all classes: targets, losses of the stored predictions, and their gradients."""
    head = head_of(oracle.config["one"])
    boxes = stored_truth(oracle, "")
    targets = head.targets(boxes)
    yield from target_outputs(oracle, "one_target", targets)
    maps = {name: oracle[f"preds/{name}"].requires_grad_() for name in (*PARTS, "heatmap")}
    terms = losses_of(head, [maps], targets)
    total = sum(terms.values())
    total.backward()
    for name, term in terms.items():
        yield Output(f"one_loss/{name}", term, LOSS)
    yield Output("one_loss/total", total, LOSS)
    for name, tensor in maps.items():
        key = f"one_grad/t0_{name}"
        yield Output(f"{key}_norm", tensor.grad.double().norm(), Tolerance(relative=GRADIENTS))
        if f"{key}_index" in oracle:
            place = oracle[f"{key}_index"].long()
            yield Output(f"{key}_index", tensor.grad.nonzero(), EQUAL)
            yield Output(f"{key}_value", tensor.grad[place.unbind(1)], Tolerance(relative=GRADIENTS))
    yield Output("one_grad/t0_heatmap_sub", maps["heatmap"].grad[..., ::5, ::7], Tolerance(of_max=GRADIENTS))
    # What training calls does the same with the boxes in range.
    inside = [b[b.centred_in(np.array(head.spec.bev_range[:2]), np.array(head.spec.bev_range[3:5]))] for b in boxes]
    wanted = sum(losses_of(head, [maps], head.targets(inside)).values())
    yield Output("one_loss/total (of what is in range)", sum(head.loss([maps], boxes).values()), LOSS, wanted)


def six_groups(oracle: Oracle) -> Iterator[Output]:
    """A whole head of six groups: its maps, losses and gradients in both modes."""
    head, boxes = _six(oracle), stored_truth(oracle, "six_")
    targets = head.targets(boxes)
    yield from target_outputs(oracle, "six_target", targets)
    with torch.no_grad():
        for task, maps in enumerate(head(oracle["six_feat"])):
            for name, value in maps.items():
                yield Output(f"six_out/task{task}_{name}", value, RAW)
    for mode in ("eval", "train"):
        head = _six(oracle).train(mode == "train")
        features = oracle["six_feat"].requires_grad_()
        terms = losses_of(head, head(features), targets)
        total = sum(terms.values())
        total.backward()
        group = f"six/{mode}/"
        for name, term in terms.items():
            yield Output(f"{group}loss/{name}", term, NET_LOSS)
        yield Output(f"{group}total", total, Tolerance(relative=1e-5, bf16=0.002))
        yield Output(f"{group}feat_grad", features.grad[:, ::2], NET_GRADIENTS)
        ours = {f"pts_bbox_head.{name}": parameter.grad for name, parameter in head.net.named_parameters()}
        yield from norms(oracle, f"{group}gradnorm/", ours, GRADIENTS, 0.01)
        for name in oracle.below(f"{group}grad/"):
            yield Output(f"{group}grad/{name}", ours[name], NET_GRADIENTS)
        for name, buffer in head.net.named_buffers():
            key = f"{group}bn_after/pts_bbox_head.{name}"
            yield Output(key, buffer, Tolerance(of_max=1e-5, bf16=None if name.endswith("tracked") else 0.0001))


def _six(oracle: Oracle) -> CenterPointHead:
    head = head_of(oracle.config["six"])
    head.net.load_state_dict(without_prefix(oracle.state(), "pts_bbox_head."))
    return head


# --- boxes ------------------------------------------------------------------------------------------------------------


def decoding(oracle: Oracle) -> Iterator[Output]:
    head = _six(oracle)
    yield from box_outputs(oracle, "six_decode/", head, stored_maps(oracle, "six_out/", len(head.class_groups)))


def stored_maps(oracle: Oracle, prefix: str, tasks: int) -> Predictions:
    return [{name: oracle[f"{prefix}task{task}_{name}"] for name in (*PARTS, "heatmap")} for task in range(tasks)]


def box_outputs(oracle: Oracle, prefix: str, head: CenterPointHead, predictions: Predictions) -> Iterator[Output]:
    """Boxes of raw predictions, decoded (`<prefix>s<sample>_t<task>_*`) and suppressed (`..._final_*`)."""
    for task, (maps, group) in enumerate(zip(predictions, head.class_groups)):
        for b, boxes in enumerate(head.decode(maps, group)):
            numbers = [group.index(CLASSES[label]) for label in boxes.labels]
            yield Output(f"{prefix}s{b}_t{task}_candidates", len(boxes), EQUAL)
            yield from _rows(oracle, f"{prefix}s{b}_t{task}_", rows_of(boxes, 0.5), boxes.scores, numbers)
    names = [name for group in head.class_groups for name in group]
    in_group = [number for number, group in enumerate(head.class_groups) for _ in group]
    for b, boxes in enumerate(head.predict(predictions)):
        numbers = np.array([names.index(CLASSES[label]) for label in boxes.labels], int)
        order = np.argsort(np.array(in_group)[numbers], kind="stable")  # the original goes group by group
        rows = rows_of(boxes, 0)[order]
        yield from _rows(oracle, f"{prefix}s{b}_final_", rows, boxes.scores[order], numbers[order])


def _rows(oracle: Oracle, key: str, rows: np.ndarray, scores: np.ndarray, labels: Any) -> Iterator[Output]:
    if f"{key}boxes" in oracle:
        yield Output(f"{key}boxes", same_turn(rows, oracle.array(f"{key}boxes")), BOXES)
        yield Output(f"{key}scores", scores, SCORES)
        yield Output(f"{key}labels", labels, EQUAL)


KINDS = (
    Kind(
        "centerhead_targets",
        ("annos/ego_boxes", "preds/heatmap"),
        (
            *("sd/*", "preds/*", "six_feat", "annos/cam_front*", "*_margin", "gt/draw*", "gt/six_*"),
            *(f"annos/{name}" for name in ("translation", "size", "rotation_wxyz", "category", "num_pts", "velocity")),
            *("gt/boxes*", "gt/gravity_center*", "gt/labels*"),  # the last sample's are made by hand
        ),
        (annotations, truth, one_group, six_groups, decoding),
    ),
)
