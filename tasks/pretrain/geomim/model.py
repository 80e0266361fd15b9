"""From a config and the teacher's BEV to the network that pretraining trains."""

from collections.abc import Callable
from typing import TypeVar

from models.depth_bins import DepthBins
from models.geomim.decoder import Decoder, DecoderSpec
from models.geomim.model import GeoMIM
from models.geomim.view_transform import ViewTransform
from models.lift_splat import BevGrid
from tasks.backbone import build_backbone
from tasks.pretrain.config import PretrainConfig

AnyGeoMIM = TypeVar("AnyGeoMIM", bound=GeoMIM)


def build_model(
    config: PretrainConfig,
    bev_channels: int,
    bev_range: tuple[float, ...],
    bev_cell: float,
    make: Callable[..., AnyGeoMIM] = GeoMIM,
) -> AnyGeoMIM:
    """GeoMIM for a teacher's BEV, initialised from torch's global generator.

    bev_range: x, y, z minimum, then maximum (m) of the teacher; z is the config's. bev_cell: side of its cells (m).
    make: takes GeoMIM's arguments.
    """
    backbone = build_backbone(config.backbone, checkpointing=config.checkpointing)
    method = config.method
    decoder = Decoder(backbone.channels[2], DecoderSpec(**method.decoder.model_dump()), config.checkpointing)
    grid = splat_grid(method.height, method.splat_ratio, bev_range, bev_cell)
    view_transform = ViewTransform(
        method.decoder.width, method.context, DepthBins(*method.depth_bins), grid, method.splat_ratio
    )
    heads = config.backbone.num_heads[2]
    return make(backbone, decoder, view_transform, heads, bev_channels, method.patch, method.depth_weight)


def splat_grid(height: tuple[float, float], splat_ratio: int, bev_range: tuple[float, ...], bev_cell: float) -> BevGrid:
    """The cells that are splatted into: so many along each axis of a teacher's, between two heights (m)."""
    return BevGrid((bev_range[0], bev_range[3]), (bev_range[1], bev_range[4]), height, bev_cell / splat_ratio)
