"""Everything of CenterPoint's head but its weights: which classes, on which map, learnt how, and what of it counts."""

from dataclasses import dataclass

import numpy as np

from models import nms
from models.center_codes import PARTS
from models.names import CLASSES
from models.norm import LIKE_TORCH, Norm

# CenterPoint's groups of classes of like size.
SIX_GROUPS = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
ONE_GROUP = (CLASSES,)

KEEP_MARGIN, KEEP_HEIGHT = 10.0, 10.0  # m beyond the map, m from zero: boxes farther out are not predicted


def code_weights(velocity: float) -> tuple[float, ...]:
    """Of the ten numbers of a box code in its loss: velocity's, and 1 for the others."""
    return (1.0,) * 8 + (velocity, velocity)


def kept_range(
    keep_range: tuple[float, ...] | None, bev_range: tuple[float, ...], margin: float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper x, y, z (m) of `keep_range`; of None, `margin` beyond the map and `height` from zero."""
    if keep_range is None:
        (x0, y0, _, x1, y1, _) = bev_range
        keep_range = x0 - margin, y0 - margin, -height, x1 + margin, y1 + margin, height
    return np.array(keep_range[:3]), np.array(keep_range[3:])


@dataclass(frozen=True)
class CenterHeadSpec:
    """Everything of a CenterPoint head but its weights.

    in_channels: of the map. bev_range: x, y, z minimum then maximum (m) in the map's frame; cell_size: of the map,
        along x and y (m).
    class_groups: each has its own branches. width: channels behind the map's one shared convolution.
    branch_width, branch_kernel: of a branch's convolutions; branch_depths: how many they are, of each of PARTS and of
        the heatmap's.
    slots: true boxes of a group in a sample that are learnt from. max_boxes: of a group in a sample that are predicted.
    keep_range: like bev_range, boxes beyond it are not predicted; None for the published margins around it.
    rules: of non-maximum suppression, see `models.nms`; they name each class of the head once.
    gaussian_overlap and min_radius (cells): how wide a centre's target is drawn.
    code_weights: of the numbers of a box code in their loss, see `code_weights`; box_weight: of all of them against the
        heatmap's; heatmap_weight: of that.
    velocity_squared: learn velocity by its squared error in place of L1. L1's best answer is the median, zero wherever
        a box more likely stands than not; the squared error's is the mean, which weak evidence already moves. Beyond
        `center_codes.SQUARED_UP_TO` the error counts linearly: one annotation of 120 m/s must not outweigh a thousand
        others.
    """

    in_channels: int
    bev_range: tuple[float, ...]
    cell_size: tuple[float, float]
    class_groups: tuple[tuple[str, ...], ...] = SIX_GROUPS
    width: int = 64
    branch_width: int = 64
    branch_kernel: int = 3
    branch_depths: tuple[int, ...] = (2,) * (len(PARTS) + 1)
    norm: Norm = LIKE_TORCH
    score_threshold: float = 0.1
    slots: int = 500
    max_boxes: int = 500
    keep_range: tuple[float, ...] | None = None
    rules: tuple[nms.Nms, ...] = nms.CENTERPOINT
    gaussian_overlap: float = 0.1
    min_radius: int = 2
    code_weights: tuple[float, ...] = code_weights(0.2)
    box_weight: float = 0.25
    heatmap_weight: float = 1.0
    velocity_squared: bool = False

    def __post_init__(self) -> None:
        ruled = [name for rule in self.rules for name in rule.classes]
        if wrong := [name for group in self.class_groups for name in group if ruled.count(name) != 1]:
            raise ValueError(f"the rules of non-maximum suppression must name once: {', '.join(wrong)}")

    @property
    def shape_YX(self) -> tuple[int, int]:
        """Cells of the map."""
        (x0, y0, _, x1, y1, _), (dx, dy) = self.bev_range, self.cell_size
        return round((y1 - y0) / dy), round((x1 - x0) / dx)

    @property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper x, y, z between which boxes are predicted."""
        return kept_range(self.keep_range, self.bev_range, KEEP_MARGIN, KEEP_HEIGHT)
