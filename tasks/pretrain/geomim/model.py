"""From a config and the teacher's BEV to the network that pretraining trains."""

from collections.abc import Callable
from typing import TypeVar

from models.backbones.build import build_backbone
from models.backbones.swin import Swin
from models.depth_bins import DepthBins
from models.geomim.decoder import DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransformSpec
from models.lift_splat import BevGrid
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods.geomim import Config

AnyGeoMIM = TypeVar("AnyGeoMIM", bound=GeoMIM)
Make = Callable[[Swin, GeoMIMSpec], AnyGeoMIM]  # a GeoMIM, or what is called like it


def build_model(
    make: Make[AnyGeoMIM],
    config: PretrainConfig,
    method: Config,
    bev_channels: int,
    bev_range: tuple[float, ...],
    bev_cell: float,
) -> AnyGeoMIM:
    """GeoMIM for a teacher's BEV, initialised from torch's global generator.

    bev_range: x, y, z minimum, then maximum (m) of the teacher; z is the config's. bev_cell: side of its cells (m).
    """
    swin = method.check_backbone(config.backbone)
    backbone = build_backbone(swin)
    grid = splat_grid(method.height, method.splat_ratio, bev_range, bev_cell)
    spec = GeoMIMSpec(
        DecoderSpec(**method.decoder.model_dump()),
        ViewTransformSpec(DepthBins(*method.depth_bins), grid, method.context, method.splat_ratio),
        fusion_heads=swin.num_heads[2],
        target_channels=bev_channels,
        patch=method.patch,
        depth_weight=method.depth_weight,
    )
    return make(backbone, spec)


def splat_grid(height: tuple[float, float], splat_ratio: int, bev_range: tuple[float, ...], bev_cell: float) -> BevGrid:
    """The cells that are splatted into: so many along each axis of a teacher's, between two heights (m)."""
    return BevGrid((bev_range[0], bev_range[3]), (bev_range[1], bev_range[4]), height, bev_cell / splat_ratio)
