"""The networks of the configs."""

from models.center_head import ONE_GROUP, SIX_GROUPS, CenterPointHead
from models.lidar.detector import BEVBackbone, LidarDetector
from models.lidar.encoder import SparseEncoder
from tasks.teacher.config import FitConfig, LidarConfig


def build_encoder(lidar: LidarConfig, norm_momentum: float = 0.01) -> SparseEncoder:
    """The encoder alone, with weights drawn from torch's global generator."""
    return SparseEncoder(
        shape=lidar.grid.sparse_shape,
        widths=lidar.widths,
        out_width=lidar.out_width,
        blocks=lidar.blocks,
        norm_momentum=norm_momentum,
    )


def build_detector(config: FitConfig) -> LidarDetector:
    """The whole detector, with weights drawn from torch's global generator."""
    lidar = config.lidar
    backbone = BEVBackbone(
        lidar.bev_channels,
        config.backbone_widths,
        config.backbone_layers,
        config.neck_width,
        config.upsample,
        config.norm_momentum,
    )
    head = CenterPointHead(
        2 * config.neck_width,
        lidar.range,
        tuple(size / config.upsample for size in lidar.cell_size),
        SIX_GROUPS if config.class_groups == "six" else ONE_GROUP,
        config.head_width,
        config.score_threshold,
        min_radius=config.gaussian_radius,
    )
    return LidarDetector(build_encoder(lidar, config.norm_momentum), backbone, head)
