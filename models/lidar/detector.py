"""The LiDAR detector: BEVFusion's teacher, and what is fitted where no published one serves.

Points -> voxels -> sparse encoder -> SECOND -> SECONDFPN -> TransFusion or CenterPoint head. What pretraining later
imitates is the encoder's map, or SECONDFPN's; the head is there to learn from, and to tell how well it detects.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import center_head
from models.bev import swap_xy
from models.center_head import CenterPointHead
from models.initialise import kaiming_init
from models.lidar import transfusion
from models.lidar.encoder import SparseEncoder
from models.lidar.grid import VoxelGrid
from models.lidar.transfusion import TransFusionHead
from models.lidar.voxelize import voxelize
from models.openmmlab import SECOND, SECONDFPN

Predictions = transfusion.Predictions | center_head.Predictions

_NORM_EPS = 1e-3


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


class BEVBackbone(nn.Module):
    """SECOND and SECONDFPN: (B, C, X, Y) -> (B, 2 * neck_width, X * upsample, Y * upsample)."""

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int] = (128, 256),
        layers: tuple[int, int] = (5, 5),
        neck_width: int = 256,
        upsample: int = 1,
        norm_momentum: float = 0.01,
    ):
        super().__init__()
        norm = {"type": "BN", "eps": _NORM_EPS, "momentum": norm_momentum}
        self.backbone = SECOND(in_channels, list(widths), list(layers), [1, 2], norm_cfg=norm)
        self.neck = SECONDFPN(
            list(widths),
            [neck_width, neck_width],
            [upsample, 2 * upsample],
            norm_cfg=norm,
            upsample_cfg={"type": "deconv", "bias": False},
            use_conv_for_no_stride=True,
        )
        kaiming_init(self)

    def forward(self, bev: Tensor) -> Tensor:
        return self.neck(self.backbone(bev))[0]


class LidarDetector(nn.Module):
    """See the module's docstring. `encoder` and `bev_backbone` make maps [C, X, Y]; `detect` makes predictions of the
    latter's, which `head.loss` and `head.predict` understand."""

    def __init__(self, encoder: SparseEncoder, bev_backbone: BEVBackbone, head: TransFusionHead | CenterPointHead):
        super().__init__()
        self.encoder = encoder
        self.bev_backbone = bev_backbone
        self.head = head

    def forward(self, batch: VoxelBatch) -> Predictions:
        return self.detect(self.bev_backbone(self.encoder(*batch)))

    def detect(self, bev: Tensor) -> Predictions:
        """The head's raw predictions of a map (B, C, X, Y) of `bev_backbone`."""
        return self.head(swap_xy(bev) if isinstance(self.head, CenterPointHead) else bev)
