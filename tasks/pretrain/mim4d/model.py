"""From a config to the network that MIM4D trains."""

from models.backbones.build import build_backbone
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid
from models.mim4d.network import MIM4D, LiftSpec
from models.mim4d.renderer import RenderSpec
from models.mim4d.temporal import TemporalSpec
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods.mim4d import Config


def build_model(config: PretrainConfig, method: Config) -> MIM4D:
    """Initialised from torch's global generator."""
    backbone = build_backbone(method.check_backbone(config.backbone))
    lift = LiftSpec(volume_grid(method), DepthBins(*method.depth_bins), method.width, method.context)
    return MIM4D(backbone, lift, render_spec(method), temporal_spec(method))


def volume_grid(method: Config) -> BevGrid:
    """The cells of a frame's volume."""
    (x0, y0, z0), (x1, y1, z1) = method.volume.low, method.volume.high
    return BevGrid((x0, x1), (y0, y1), (z0, z1), method.volume.cell, method.volume.heights)


def render_spec(method: Config) -> RenderSpec:
    """How the volume is rendered."""
    volume, render = method.volume, method.render
    return RenderSpec(volume.low, volume.high, volume.channels, samples=render.samples, importance=render.importance)


def temporal_spec(method: Config) -> TemporalSpec | None:
    """How a frame is rebuilt from the others; None where there are none."""
    if method.frames == 1:
        return None
    heights, y, x = method.volume.shape
    return TemporalSpec((y, x), method.volume.channels, heights, method.frames - 1, **method.temporal.model_dump())
