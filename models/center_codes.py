"""Box codes of CenterPoint's head: what one says, where it is read from a map, and how it is learnt.

Shape legend: B samples, C classes of a group, M slots for true boxes, K cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# What is said of a box at its centre's cell: offset of the centre (cells), height of the centre (m), log of length,
# width and height, (sin, cos) of yaw, velocity (m/s).
PARTS = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}

SQUARED_UP_TO = 10.0  # m/s of a velocity's error


class Targets(NamedTuple):
    """What one class group should say. The M slots keep the order of the boxes, by class, then as they were given."""

    heatmap: Tensor  # (B, C, Y, X) float32, 1 at centres
    codes: Tensor  # (B, M, 10) float32, the PARTS; NaN where unknown
    cells: Tensor  # (B, M) int64, y * X + x
    used: Tensor  # (B, M) bool; a slot is empty at the end, and where a box has no size or lies off the map


def codes_at(maps: dict[str, Tensor], cells: Tensor) -> Tensor:
    """(B, K, 10) float32, what a class group's maps say (the PARTS) in the cells (B, K), y * X + x."""
    codes = torch.cat([maps[name] for name in PARTS], 1).float().flatten(2)  # (B, 10, Y * X)
    return codes.gather(2, cells[:, None].expand(-1, codes.shape[1], -1)).transpose(1, 2)


def code_losses(
    maps: dict[str, Tensor],
    targets: Targets,
    weights: Tensor,
    box_weight: float,
    velocity_squared: bool = False,
) -> Tensor:
    """(10,) weighted L1 loss of each number of the box codes, per box; a group's share of the loss is their sum.

    velocity_squared: the last two, velocity's, are squared errors, as far as SQUARED_UP_TO (Huber's loss).
    """
    known = targets.used[..., None] & ~targets.codes.isnan()
    # Weighting would not do: 0 * NaN is NaN.
    errors = torch.where(known, codes_at(maps, targets.cells) - targets.codes.nan_to_num(), 0)
    velocity = errors[..., -2:].abs()
    if velocity_squared:
        near = velocity.clamp(max=SQUARED_UP_TO)
        velocity = near * (2 * velocity - near)  # the square, and its tangent farther on
    distance = torch.cat([errors[..., :-2].abs(), velocity], 2).sum((0, 1))
    return box_weight * weights * distance / (targets.used.sum() + 1e-4)
