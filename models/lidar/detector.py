"""The LiDAR detector: BEVFusion's teacher, and what is fitted where no published one serves.

Points -> voxels -> sparse encoder -> SECOND -> SECONDFPN -> TransFusion or CenterPoint head. What pretraining later
imitates is the encoder's map, or SECONDFPN's; the head is there to learn from, and to tell how well it detects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import center_head
from models.bev import swap_xy
from models.boxes import Boxes
from models.center_head import CenterPointHead
from models.center_spec import CenterHeadSpec
from models.lidar import transfusion
from models.lidar.bev_backbone import BEVBackbone, BevBackboneSpec
from models.lidar.box_code import Convention
from models.lidar.encoder import EncoderSpec, SparseEncoder
from models.lidar.grid import VoxelGrid
from models.lidar.transfusion import TransFusionHead, TransFusionSpec
from models.lidar.voxelize import voxelize

Predictions = transfusion.Predictions | center_head.Predictions


@dataclass(frozen=True)
class LidarSpec:
    """Everything of a LiDAR detector but its weights. Without `bev_backbone` and `head` it is an encoder alone."""

    grid: VoxelGrid
    encoder: EncoderSpec
    bev_backbone: BevBackboneSpec | None = None
    head: TransFusionSpec | CenterHeadSpec | None = None

    def __post_init__(self) -> None:
        _, *cells = self.encoder.output_shape(self.grid.sparse_shape)
        stride = math.prod(self.bev_backbone.strides) if self.bev_backbone else 1
        if any(side % stride for side in cells):
            raise ValueError(f"a map of {cells[0]}x{cells[1]} cells is no multiple of SECOND's stride, {stride}")


class VoxelBatch(NamedTuple):
    """The voxels of B samples, one after the other."""

    means: Tensor  # (V, F) float32
    coords: Tensor  # (V, 4) int64: sample in the batch, x, y, z
    batch_size: int

    def to(self, device: torch.device) -> "VoxelBatch":
        return VoxelBatch(self.means.to(device), self.coords.to(device), self.batch_size)


def voxel_batch(points: Sequence[Tensor], grid: VoxelGrid) -> VoxelBatch:
    """The voxels of several clouds (N_i, F)."""
    voxels = [voxelize(p, grid) for p in points]
    coords = [torch.nn.functional.pad(v.coords, (1, 0), value=b) for b, v in enumerate(voxels)]
    return VoxelBatch(torch.cat([v.means for v in voxels]), torch.cat(coords), len(points))


class LidarDetector(nn.Module):
    """See the module's docstring. `encoder` and `bev_backbone` make maps [C, X, Y]; `detect` makes predictions of the
    latter's, which `head.loss` and `head.predict` understand, and `boxes` what the head predicts of them."""

    def __init__(self, encoder: SparseEncoder, bev_backbone: BEVBackbone, head: TransFusionHead | CenterPointHead):
        super().__init__()
        self.encoder = encoder
        self.bev_backbone = bev_backbone
        self.head = head

    def forward(self, batch: VoxelBatch) -> Predictions:
        return self.detect(self.bev_backbone(self.encoder(*batch)))

    def detect(self, bev: Tensor) -> Predictions:
        """The head's raw predictions of a map (B, C, X, Y) of `bev_backbone`."""
        return self.head(self._laid_out(bev))

    def boxes(self, bev: Tensor) -> list[Boxes]:
        """Each sample's, of such a map, best first."""
        return self.head.predict(self.head(self._laid_out(bev)))

    def _laid_out(self, bev: Tensor) -> Tensor:
        """A map as the head wants it."""
        return swap_xy(bev) if isinstance(self.head, CenterPointHead) else bev


def build_detector(spec: LidarSpec, convention: Convention = Convention.MMDET3D) -> LidarDetector:
    """A whole detector, its weights drawn from torch's global generator: backbone's, head's, then encoder's.

    convention: how the weights that it is for say boxes, to a TransFusion head. ValueError for an encoder alone.
    """
    if spec.bev_backbone is None or spec.head is None:
        raise ValueError("an encoder alone is no detector")
    backbone = BEVBackbone(spec.bev_backbone)
    head: TransFusionHead | CenterPointHead
    if isinstance(spec.head, TransFusionSpec):
        head = TransFusionHead(spec.head, convention)
    else:
        head = CenterPointHead(spec.head)
    return LidarDetector(SparseEncoder(spec.grid.sparse_shape, spec.encoder), backbone, head)
