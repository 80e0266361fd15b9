"""CenterPoint's detection head on a bird's-eye-view map (arXiv 2006.11275), as BEVDet and mmdetection3d compute it.

The LiDAR detector and the camera detector share it. It works on `[C, Y, X]` maps (`bev.swap_xy`). Layers have the names
of mmdetection3d's head, so that published weights are a renaming away.

Shape legend: B samples, C classes of a group, M slots for true boxes, K boxes predicted at most.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from models import center_targets, nms
from models.boxes import Boxes
from models.center_codes import PARTS, Targets, code_losses, codes_at
from models.focal_loss import heatmap_loss
from models.head import Head
from models.initialise import init_scores, kaiming_init
from models.layers import ModuleList
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

LARGEST_LOG_SIZE = 5.0  # 148 m: only a network that has learnt nothing says more, and exp of it may overflow
KEEP_MARGIN, KEEP_HEIGHT = 10.0, 10.0  # m beyond the map, m from zero: boxes farther out are not predicted
HEATMAP_CLAMP = 1e-4  # of its loss

Predictions = list[dict[str, Tensor]]  # one dict a class group: reg, height, dim, rot, vel, heatmap (B, c, Y, X)


def code_weights(velocity: float) -> tuple[float, ...]:
    """Of the ten numbers of a box code in its loss: velocity's, and 1 for the others."""
    return (1.0,) * 8 + (velocity, velocity)


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
        if self.keep_range is not None:
            return np.array(self.keep_range[:3]), np.array(self.keep_range[3:])
        margin = np.array([KEEP_MARGIN, KEEP_MARGIN])
        low, high = np.array(self.bev_range[:2]) - margin, np.array(self.bev_range[3:5]) + margin
        return np.array([*low, -KEEP_HEIGHT]), np.array([*high, KEEP_HEIGHT])


class CenterPointHead(Head):
    """Heatmap of centres per class, and at each centre offset, height, log size, (sin, cos) of yaw and velocity."""

    code_weights: Tensor

    def __init__(self, spec: CenterHeadSpec):
        super().__init__()
        self.spec, self.class_groups = spec, spec.class_groups
        self.net = _Net(spec)
        self.register_buffer("code_weights", torch.tensor(spec.code_weights), persistent=False)

    def forward(self, bev_CYX: Tensor) -> Predictions:
        """Raw maps of a BEV (B, C, Y, X)."""
        return self.net(bev_CYX)

    def loss(self, predictions: Predictions, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """`losses` of what is drawn here of the samples' boxes, in the map's frame."""
        return self.losses(predictions, self._learnt(boxes))

    def losses(self, predictions: Predictions, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Gaussian focal loss of the heatmaps and `code_losses` of the boxes, a term of each per class group.

        targets: each group's, see `models.center_targets`; an unknown velocity (NaN) is not learnt from.
        """
        terms = {}
        for number, (maps, wanted) in enumerate(zip(predictions, targets, strict=True)):
            terms[f"task{number}.heatmap"] = self.heatmap_loss(maps, wanted)
            terms[f"task{number}.box"] = self.code_losses(maps, wanted).sum()
        return terms

    def heatmap_loss(self, maps: dict[str, Tensor], targets: Targets) -> Tensor:
        """A class group's, weighted."""
        return self.spec.heatmap_weight * heatmap_loss(maps["heatmap"], targets.heatmap, HEATMAP_CLAMP)

    def counts(self, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """Of `loss`, see `counts_of`."""
        return self.counts_of(self._learnt(boxes))

    @staticmethod
    def counts_of(targets: Sequence[Targets]) -> dict[str, Tensor]:
        """By how many the sum of each term of `losses` is divided, at least by 1: centres, and boxes."""
        counts = {}
        for number, wanted in enumerate(targets):
            counts[f"task{number}.heatmap"] = (wanted.heatmap == 1).sum()
            counts[f"task{number}.box"] = wanted.used.sum()
        return counts

    def code_losses(self, maps: dict[str, Tensor], targets: Targets) -> Tensor:
        """(10,) see `code_losses`."""
        spec = self.spec
        return code_losses(maps, targets, self.code_weights, spec.box_weight, spec.velocity_squared)

    def targets(self, boxes: Sequence[Boxes]) -> list[Targets]:
        """What each class group should say of the samples' boxes, which lie in the range; on the head's device."""
        return self._moved([center_targets.drawn(self.spec, sample) for sample in boxes])

    def _learnt(self, boxes: Sequence[Boxes]) -> list[Targets]:
        return self._moved([center_targets.learnt(self.spec, sample) for sample in boxes])

    def _moved(self, samples: list[list[Targets]]) -> list[Targets]:
        device = next(self.parameters()).device
        return [Targets(*(part.to(device) for part in group)) for group in center_targets.joined(samples)]

    @torch.no_grad()
    def predict(self, predictions: Predictions) -> list[Boxes]:
        """Boxes of each sample: centres of gravity, scores, velocities (m/s in the map's frame), best first."""
        groups = zip(*(self.decode(maps, group) for maps, group in zip(predictions, self.class_groups)))
        return [nms.suppressed(Boxes.joined(parts), self.spec.rules) for parts in groups]

    @torch.no_grad()
    def decode(self, maps: dict[str, Tensor], group: Sequence[str]) -> list[Boxes]:
        """The best boxes of one class group in each sample, before suppression, best first."""
        heat = maps["heatmap"].float().sigmoid()
        height, width = heat.shape[2:]
        scores, best = heat.flatten(1).topk(min(self.spec.max_boxes, height * width))  # (B, K)
        labels, cells = best // (height * width), best % (height * width)
        reg, z, dim, rot, velocity = codes_at(maps, cells).split(list(PARTS.values()), 2)
        xy = torch.stack([cells % width, cells // width], 2) + reg
        xyz = torch.cat([xy * xy.new_tensor(self.spec.cell_size) + xy.new_tensor(self.spec.bev_range[:2]), z], 2)
        sizes, yaws = dim.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE).exp(), torch.atan2(rot[..., 0], rot[..., 1])

        to_label = np.array([CLASSES.index(name) for name in group])
        columns = [a.cpu().numpy().astype(np.float64) for a in (xyz, sizes, yaws, velocity)]
        found = zip(*columns, to_label[labels.cpu().numpy()], scores.cpu().numpy().astype(np.float64))
        return [self._kept(Boxes(*sample)) for sample in found]

    def _kept(self, boxes: Boxes) -> Boxes:
        low, high = self.spec.kept
        inside = ((boxes.centers >= low) & (boxes.centers <= high)).all(1)
        return boxes[inside & (boxes.required_scores > self.spec.score_threshold)]


class _Net(nn.Module):
    def __init__(self, spec: CenterHeadSpec):
        super().__init__()
        self.shared_conv = _conv_norm_relu(spec.in_channels, spec.width, 3, spec.norm)
        self.task_heads = ModuleList(
            nn.ModuleDict(
                {
                    name: _branch(spec, channels, depth)
                    for (name, channels), depth in zip((PARTS | {"heatmap": len(group)}).items(), spec.branch_depths)
                }
            )
            for group in spec.class_groups
        )
        kaiming_init(self)
        for branches in self.task_heads:
            init_scores(branches["heatmap"])

    def forward(self, bev: Tensor) -> Predictions:
        shared = self.shared_conv(bev)
        return [{name: branch(shared) for name, branch in branches.items()} for branches in self.task_heads]


def _branch(spec: CenterHeadSpec, channels: int, depth: int) -> nn.Sequential:
    widths, kernel = [spec.width] + [spec.branch_width] * (depth - 1), spec.branch_kernel
    hidden = [_conv_norm_relu(before, after, kernel, spec.norm) for before, after in pairwise(widths)]
    return nn.Sequential(*hidden, nn.Conv2d(widths[-1], channels, kernel, padding=kernel // 2))


def _conv_norm_relu(in_channels: int, out_channels: int, kernel: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm.over_maps(out_channels), activate=nn.ReLU(inplace=True)))
