"""CenterPoint's detection head on a bird's-eye-view map: mmdet3d's CenterHead, fed and read in this project's types.

The LiDAR detector and the camera detector share it. Like mmdet3d's, it works on `[C, Y, X]` maps (`bev.swap_xy`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.boxes import Boxes
from models.names import CLASSES
from models.openmmlab import CenterHead, InstanceData, LiDARInstance3DBoxes, circle_nms, kaiming_init

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

# Of two boxes of a class whose centres are nearer than this (m), the better-scored one stays (CenterPoint's radii).
NMS_RADIUS = {
    "car": 2.0,
    "truck": 3.46,
    "construction_vehicle": 3.46,
    "bus": 3.16,
    "trailer": 3.16,
    "barrier": 1.0,
    "motorcycle": 0.92,
    "bicycle": 0.92,
    "pedestrian": 0.42,
    "traffic_cone": 0.42,
}

HEATMAP_BIAS = -2.19  # sigmoid(-2.19) = 0.1: without it the first focal loss explodes
LARGEST_LOG_SIZE = 5.0  # 148 m: only a network that has learnt nothing says more, and exp of it may overflow
_CHANNELS = {"reg": (2, 2), "height": (1, 2), "dim": (3, 2), "rot": (2, 2), "vel": (2, 2)}
_CODE_WEIGHTS = [1.0] * 8 + [0.2] * 2

Predictions = list[dict[str, Tensor]]  # one dict a class group: reg, height, dim, rot, vel, heatmap (B, c, Y, X)


class CenterPointHead(nn.Module):
    """Heatmap of centres per class, and at each centre offset, height, log size, (sin, cos) of yaw and velocity.

    range: x, y, z minimum then maximum (m) in the map's frame; cell_size: of the map, along x and y (m).
    gaussian_overlap and min_radius (cells): how wide a centre's target is drawn.
    """

    def __init__(
        self,
        in_channels: int,
        range: Sequence[float],
        cell_size: tuple[float, float],
        class_groups: Sequence[Sequence[str]] = SIX_GROUPS,
        width: int = 64,
        score_threshold: float = 0.1,
        max_boxes: int = 500,
        gaussian_overlap: float = 0.1,
        min_radius: int = 2,
    ):
        super().__init__()
        self.class_groups = tuple(tuple(group) for group in class_groups)
        names = [name for group in self.class_groups for name in group]
        # mmdet3d numbers classes in the order of the groups.
        self.register_buffer("to_class", torch.tensor([CLASSES.index(n) for n in names]), persistent=False)
        grid = [round((range[i + 3] - range[i]) / cell_size[i]) for i in (0, 1)]
        self.shape_YX = (grid[1], grid[0])
        self.keep_range = [range[0] - 10, range[1] - 10, -10.0, range[3] + 10, range[4] + 10, 10.0]
        self.net = _Net(
            in_channels=in_channels,
            tasks=[{"num_class": len(group), "class_names": list(group)} for group in self.class_groups],
            share_conv_channel=width,
            common_heads=_CHANNELS,
            separate_head={"type": "SeparateHead", "init_bias": HEATMAP_BIAS, "final_kernel": 3},
            bbox_coder={
                "type": "CenterPointBBoxCoder",
                "pc_range": list(range[:2]),
                "voxel_size": list(cell_size),
                "out_size_factor": 1,
                "max_num": min(max_boxes, grid[0] * grid[1]),
                "score_threshold": score_threshold,
                "code_size": 9,
                "post_center_range": self.keep_range,
            },
            train_cfg={
                "grid_size": grid,
                "point_cloud_range": list(range),
                "voxel_size": list(cell_size),
                "out_size_factor": 1,
                "max_objs": max_boxes,
                "dense_reg": 1,
                "gaussian_overlap": gaussian_overlap,
                "min_radius": min_radius,
                "code_weights": _CODE_WEIGHTS,
            },
        )
        self.net.loss_bbox = _KnownL1()
        kaiming_init(self.net)
        for head in self.net.task_heads:
            # Scores begin at the bias's 0.1 everywhere; random scores near 1 would cost the first dozens of steps.
            nn.init.normal_(head.heatmap[-1].weight, std=0.01)
            nn.init.constant_(head.heatmap[-1].bias, HEATMAP_BIAS)

    def forward(self, bev_CYX: Tensor) -> Predictions:
        """Raw maps of a BEV (B, C, Y, X)."""
        return self.net.forward_single(bev_CYX)

    def loss(self, predictions: Predictions, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """Gaussian focal loss of the heatmaps and L1 of the boxes, a term of each per class group.

        boxes: the truth of each sample in the map's frame; classes in no group and boxes outside the range are left
        out; an unknown velocity (NaN) is not learnt from.
        """
        truth = [self._instances(b) for b in boxes]
        terms = self.net.loss_by_feat([[dict(group)] for group in predictions], truth)
        return {name.replace("loss_", "").replace("bbox", "box"): term for name, term in terms.items()}

    @torch.no_grad()
    def predict(self, predictions: Predictions) -> list[Boxes]:
        """Boxes of each sample: centres of gravity, scores, velocities (m/s in the map's frame), best first."""
        found: list[list[Boxes]] = [[] for _ in range(len(predictions[0]["heatmap"]))]
        first_class = 0
        for maps in predictions:
            sine, cosine = maps["rot"].float().split(1, 1)
            self.net.bbox_coder.post_center_range = self.keep_range  # it overwrites its own list with a tensor
            decoded = self.net.bbox_coder.decode(
                maps["heatmap"].float().sigmoid(),
                sine,
                cosine,
                maps["height"].float(),
                maps["dim"].float().clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE).exp(),
                maps["vel"].float(),
                reg=maps["reg"].float(),
            )
            for boxes, sample in zip(found, decoded):
                labels = self.to_class[sample["labels"].long() + first_class]
                boxes.extend(_suppressed(sample["bboxes"], sample["scores"], labels))
            first_class += maps["heatmap"].shape[1]
        return [_merged(boxes) for boxes in found]

    def _instances(self, boxes: Boxes) -> InstanceData:
        to_net = np.full(len(CLASSES) + 1, -1)  # the extra, last entry is label -1
        to_net[self.to_class.cpu().numpy()] = np.arange(len(self.to_class))
        labels = to_net[boxes.labels]
        columns = np.concatenate([boxes.centers, boxes.sizes, boxes.yaws[:, None], boxes.velocities], 1)[labels >= 0]
        tensor = torch.from_numpy(columns.astype(np.float32))
        return InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(tensor, box_dim=9, origin=(0.5, 0.5, 0.5)),
            labels_3d=torch.from_numpy(labels[labels >= 0]),
        )


class _Net(CenterHead):
    def get_targets(self, batch_gt_instances_3d):
        """Targets are drawn box by box on the CPU, and moved at once."""
        device = self.shared_conv.conv.weight.device
        return tuple([t.to(device) for t in kind] for kind in super().get_targets(batch_gt_instances_3d))


class _KnownL1(nn.Module):
    """L1 loss over the targets of weight above zero. mmdet's multiplies by the weight, and 0 * NaN is NaN."""

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
        distance = (pred - torch.where(weight > 0, target, pred.detach())).abs()
        return 0.25 * (distance * weight).sum() / avg_factor


def _suppressed(columns: Tensor, scores: Tensor, labels: Tensor) -> list[Boxes]:
    """What circle NMS leaves of one sample's boxes (N, 9), class by class."""
    out = []
    columns, scores, labels = columns.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        circles = np.concatenate([columns[own, :2], scores[own, None]], 1)
        # mmdet3d compares the threshold with the squared distance.
        own = own[circle_nms(circles, NMS_RADIUS[CLASSES[label]] ** 2, post_max_size=len(own))]
        rows = columns[own].astype(np.float64)
        out.append(
            Boxes(
                centers=rows[:, :3],
                sizes=rows[:, 3:6],
                yaws=rows[:, 6],
                velocities=rows[:, 7:9],
                labels=np.full(len(own), label, np.int64),
                scores=scores[own].astype(np.float64),
            )
        )
    return out


def _merged(parts: list[Boxes]) -> Boxes:
    if not parts:
        empty = Boxes.empty()
        return Boxes(empty.centers, empty.sizes, empty.yaws, empty.velocities, empty.labels, np.zeros(0))
    fields = ("centers", "sizes", "yaws", "velocities", "labels", "scores")
    boxes = Boxes(*(np.concatenate([getattr(p, name) for p in parts]) for name in fields))
    return boxes[np.argsort(-boxes.scores, kind="stable")]
