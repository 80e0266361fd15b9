"""What CenterPoint's head learns from a sample's boxes: drawn on the CPU, where boxes are loaded."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.boxes import Boxes
from models.center_codes import Targets
from models.center_spec import CenterHeadSpec
from models.heatmap import draw_centers
from models.names import CLASSES


def learnt(spec: CenterHeadSpec, boxes: Boxes) -> list[Targets]:
    """What each class group should say of one sample's boxes (in the map's frame), B = 1.

    Classes in no group and boxes centred outside the range are left out.
    """
    low, high = (np.array(corner) for corner in (spec.bev_range[:2], spec.bev_range[3:5]))
    return drawn(spec, boxes[boxes.centred_in(low, high)])


def drawn(spec: CenterHeadSpec, boxes: Boxes) -> list[Targets]:
    """The same of boxes within the range."""
    return [_group(spec, boxes, [CLASSES.index(name) for name in group]) for group in spec.class_groups]


def joined(samples: Iterable[Sequence[Targets]]) -> list[Targets]:
    """Each group's, of several samples."""
    return [Targets(*map(torch.cat, zip(*group))) for group in zip(*samples, strict=True)]


def _group(spec: CenterHeadSpec, boxes: Boxes, labels: list[int]) -> Targets:
    rows = np.concatenate([np.flatnonzero(boxes.labels == label) for label in labels])[: spec.slots]
    boxes = boxes[rows]
    # In float32, as the original: a centre on the border of two cells falls into the same one.
    xyz, sizes, yaws = (a.astype(np.float32) for a in (boxes.centers, boxes.sizes, boxes.yaws))
    cell_size = np.array(spec.cell_size).astype(np.float32)
    place = (xyz[:, :2] - np.array(spec.bev_range[:2]).astype(np.float32)) / cell_size
    cell = place.astype(np.int64)  # towards zero, so up to a cell off the low sides counts; `learnt` leaves it out
    on_map = ((cell >= 0) & (cell < spec.shape_YX[::-1])).all(1)
    used = on_map & (sizes > 0).all(1)
    heatmap = draw_centers(
        (len(labels), *spec.shape_YX),
        [labels.index(label) for label in boxes.labels[used]],
        cell[used][:, ::-1],
        (sizes[:, :2] / cell_size)[used],
        spec.gaussian_overlap,
        spec.min_radius,
    )
    log_sizes = np.log(np.where(used[:, None], sizes, 1))
    codes = np.c_[place - cell, xyz[:, 2], log_sizes, np.sin(yaws), np.cos(yaws), boxes.velocities]
    with np.errstate(over="ignore"):  # then it is infinite, as is the loss, which is for the training loop to tell
        codes = codes.astype(np.float32)
    cells = cell[:, 1] * spec.shape_YX[1] + cell[:, 0]
    slots = (_slots(values, used, spec.slots) for values in (codes, cells, used))
    return Targets(torch.from_numpy(heatmap)[None], *slots)


def _slots(values: np.ndarray, used: np.ndarray, count: int) -> Tensor:
    """The boxes' values (N, ...) in (1, count) slots, zero where there is no box to learn from."""
    slots = np.zeros((count, *values.shape[1:]), values.dtype)
    slots[: len(values)][used] = values[used]
    return torch.from_numpy(slots)[None]
