"""CenterPoint's detection head on a bird's-eye-view map (arXiv 2006.11275), as BEVDet and mmdetection3d compute it.

The LiDAR detector and the camera detector share it. It works on `[C, Y, X]` maps (`bev.swap_xy`). Layers have the names
of mmdetection3d's head, so that published weights are a renaming away.

Shape legend: B samples, C classes of a group, M slots for true boxes, K boxes predicted at most.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from models import center_targets, nms
from models.boxes import Boxes
from models.center_codes import PARTS, Targets, code_losses, codes_at
from models.center_spec import CenterHeadSpec
from models.focal_loss import heatmap_loss
from models.head import Head
from models.initialise import init_scores, kaiming_init
from models.layers import ModuleList
from models.names import CLASSES
from models.norm import Norm

LARGEST_LOG_SIZE = 5.0  # 148 m: only a network that has learnt nothing says more, and exp of it may overflow
HEATMAP_CLAMP = 1e-4  # of its loss

Predictions = list[dict[str, Tensor]]  # one dict a class group: reg, height, dim, rot, vel, heatmap (B, c, Y, X)


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
