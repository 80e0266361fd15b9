"""GeoMIM of a few channels, and cameras and images of noise for it."""

import torch

from models.depth_bins import DepthBins
from models.geomim.decoder import DecoderSpec
from models.geomim.model import GeoMIM, GeoMIMSpec
from models.geomim.view_transform import ViewTransformSpec
from models.lift_splat import BevGrid
from one_frame import one_frame
from small_swin import small_swin


def tiny_model(**ablation):
    torch.manual_seed(0)
    backbone = small_swin()
    grid = BevGrid((-8.0, 8.0), (-8.0, 8.0), (-5.0, 5.0), 1.0)
    view = ViewTransformSpec(DepthBins(1, 11, 1), grid, context=6)
    spec = GeoMIMSpec(DecoderSpec(16, 2, 4, **ablation), view, fusion_heads=2, target_channels=5, patch=4)
    return GeoMIM(backbone, spec)


def tiny_inputs(batch=2, views=3):
    generator = torch.Generator().manual_seed(0)
    forward = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    cameras = one_frame(
        torch.tensor([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]).expand(batch, views, 3, 3),
        torch.eye(4).expand(batch, views, 4, 4),
        forward.expand(batch, views, 4, 4),
        (torch.eye(4) + 0.1 * torch.randn(batch, views, 4, 4, generator=generator)),
    )
    return torch.randn(batch, views, 3, 64, 64, generator=generator), cameras, generator
