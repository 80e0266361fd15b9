"""What a LiDAR teacher is to the pipeline: points in, a bird's-eye-view map out, and boxes where it has a head."""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from models.boxes import Boxes
from models.lidar.bev_backbone import BEVBackbone
from models.lidar.detector import LidarDetector, VoxelBatch, voxel_batch
from models.lidar.encoder import SparseEncoder
from models.lidar.grid import VoxelGrid


class Teacher(Protocol):
    """A frozen network whose maps are cached. Any LiDAR detector can be one.

    bev_shape: (C, X, Y) of its map; bev_range: x, y, z minimum, then maximum (m, LIDAR_TOP frame) that the map covers;
    cell_size: of the map along x and y (m); detects: whether it can say boxes; no_boxes: if not, why, else empty.
    """

    @property
    def bev_shape(self) -> tuple[int, int, int]: ...
    @property
    def bev_range(self) -> tuple[float, ...]: ...
    @property
    def cell_size(self) -> tuple[float, float]: ...
    @property
    def detects(self) -> bool: ...
    @property
    def no_boxes(self) -> str: ...

    def prepare(self, points: Tensor) -> Any:
        """What the network reads, made of points (N, 5) on the CPU: voxels. Called in a thread, ahead of `run`."""

    def run(self, prepared: Any, device: torch.device, boxes: bool) -> tuple[Tensor, Boxes | None]:
        """The map (C, X, Y) float32 on `device` and, if `boxes`, the detections (key LIDAR_TOP frame, best first)."""


class LidarTeacher:
    """A `Teacher` out of this project's own parts: BEVFusion's LiDAR detector, or as much of it as there is.

    output: the map of the sparse encoder, or that of SECONDFPN.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        encoder: SparseEncoder,
        bev_backbone: BEVBackbone | None = None,
        detector: LidarDetector | None = None,
        output: Literal["encoder", "neck"] = "encoder",
    ):
        """detector: where there is one, the whole of which `encoder` and `bev_backbone` are parts."""
        self.grid, self.output = grid, output
        self.encoder, self.bev_backbone, self.detector = encoder.eval(), bev_backbone, detector
        for module in (bev_backbone, detector):
            if module is not None:
                module.eval()
        self.detects = detector is not None
        self.no_boxes = "" if self.detects else "there is no detection head that is known here"
        self.bev_range = grid.point_range
        with torch.inference_mode():  # what comes out of no points
            channels, x, y = self._maps(self.prepare(torch.zeros(0, 5)), torch.device("cpu"))[output].shape[1:]
        self.bev_shape = channels, x, y
        low, high = grid.point_range[:2], grid.point_range[3:5]
        self.cell_size = (high[0] - low[0]) / x, (high[1] - low[1]) / y

    def prepare(self, points: Tensor) -> VoxelBatch:
        return voxel_batch([points], self.grid)

    def run(self, prepared: VoxelBatch, device: torch.device, boxes: bool) -> tuple[Tensor, Boxes | None]:
        maps = self._maps(prepared, device, need_neck=boxes)
        if not boxes:
            return maps[self.output][0], None
        if self.detector is None:
            raise ValueError(f"this teacher gives no boxes: {self.no_boxes}")
        return maps[self.output][0], self.detector.boxes(maps["neck"])[0]

    def _maps(self, voxels: VoxelBatch, device: torch.device, need_neck: bool = False) -> dict[str, Tensor]:
        """name -> (1, C, X, Y)."""
        maps = {"encoder": self.encoder.to(device)(*voxels.to(device))}
        if need_neck or self.output == "neck":
            if self.bev_backbone is None:
                raise ValueError("this teacher is an encoder alone")
            maps["neck"] = self.bev_backbone.to(device)(maps["encoder"])
        return maps
