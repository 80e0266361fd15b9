"""MIM4D (arXiv 2403.08760): a camera backbone learns geometry by rendering masked video. Of one frame: UniPAD."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.convnext import ConvNeXt
from models.backbones.swin import Swin
from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid, SplatPlan, bev_cells, splat
from models.masking import HIDDEN, upsample_groups
from models.mim4d.renderer import RenderSpec
from models.mim4d.temporal import TemporalSpec
from models.mim4d.video import GROUPS, RayBundle, Targets, VideoRendered, VideoRendering
from models.rays import feature_pixels, pixel_rays
from models.uncompiled import uncompiled


@dataclass(frozen=True)
class LiftSpec:
    """From a map to a volume. width: channels of the neck; context: of what is lifted."""

    grid: BevGrid
    bins: DepthBins
    width: int = 256
    context: int = 128


class MIM4D(nn.Module):
    """Backbone, neck, lift, and what renders.

    Args:
        backbone: the one to pretrain: a Swin, or a ConvNeXt on what is visible of an image.
    """

    def __init__(self, backbone: Swin | ConvNeXt, lift: LiftSpec, render: RenderSpec, temporal: TemporalSpec | None):
        super().__init__()
        self.backbone, self.spec, self.stride = backbone, lift, backbone.strides[2]
        self.neck = Neck(backbone.channels[2], backbone.channels[3], lift.width)
        width = lift.width
        self.depth_net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(min(GROUPS, width), width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(min(GROUPS, width), width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, lift.bins.count + lift.context, 1),
        )
        self.video = VideoRendering(lift.context, render, temporal)

    @uncompiled
    @torch.no_grad()
    def geometry(self, cameras: Cameras, image_size: tuple[int, int], there: Tensor | None = None) -> SplatPlan:
        """What `forward` takes of the cameras; made outside of it, once a batch.

        cameras: of B * T samples of one frame. image_size: (H, W) of their images. there: see `volume_plan`.
        """
        return volume_plan(cameras, image_size, self.stride, self.spec.bins, self.spec.grid, there)

    def forward(
        self, images: Tensor, visible: Tensor, plan: SplatPlan, targets: Targets, rays: RayBundle
    ) -> VideoRendered:
        """images: (B, T, N, 3, H, W); visible: bool (B * T * N, h, w), cells that divide the coarsest map."""
        return self.video(self.lift(images, visible, plan), targets, rays)

    def lift(self, images: Tensor, visible: Tensor, plan: SplatPlan) -> Tensor:
        """The volume of every frame, in its own LiDAR frame."""
        batch, frames, views = images.shape[:3]
        _, _, fine, coarse = self.encode(images.flatten(0, 2), visible)
        out = self.depth_net(self.neck(fine, coarse, visible)).unflatten(0, (batch * frames, views))
        depth_prob, context = out[:, :, : self.spec.bins.count].softmax(2), out[:, :, self.spec.bins.count :]
        return to_volumes(depth_prob, context, plan, self.spec.grid).unflatten(0, (batch, frames))

    def encode(self, images: Tensor, visible: Tensor) -> list[Tensor]:
        """The backbone's maps of what is visible of images (M, 3, H, W); what is hidden has no influence there."""
        if isinstance(self.backbone, ConvNeXt):
            return self.backbone(images, visible)
        return self.backbone(images, torch.where(visible, 0, HIDDEN))


class Neck(nn.Module):
    """Stages 3 and 4 to one map at stage 3's stride, with a token of its own for every hidden place.

    Cell by cell, so that nothing passes from a hidden place to its neighbours before it is replaced.
    """

    def __init__(self, fine: int, coarse: int, width: int):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(fine, width, 1), nn.Conv2d(coarse, width, 1)
        self.mask_token = nn.Parameter(torch.zeros(width, 1, 1))
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, fine: Tensor, coarse: Tensor, visible: Tensor) -> Tensor:
        """(M, width, h, w) of fine (M, C, h, w) and coarse (M, C', h/2, w/2)."""
        fused = self.fine(fine) + F.interpolate(self.coarse(coarse), fine.shape[-2:], mode="nearest")
        return torch.where(upsample_groups(visible, *fine.shape[-2:])[:, None], fused, self.mask_token.to(fused.dtype))


def volume_plan(
    cameras: Cameras,
    image_size: tuple[int, int],
    stride: int,
    bins: DepthBins,
    grid: BevGrid,
    there: Tensor | None = None,
) -> SplatPlan:
    """Of the splats of the cameras' maps of this stride into volumes.

    there: (B, T, N) bool of the cameras' B * T samples; what a camera does not have is lifted nowhere. None: all have.
    """
    device = cameras.intrinsics.device
    rays = pixel_rays(cameras.lens(), cameras.camera_to_bev(), feature_pixels(image_size, stride, device))
    cells = bev_cells(rays.at(bins.edges(device)), grid, order="yx")
    if there is not None:
        cells = torch.where(there.flatten(0, 1)[:, :, None, None, None], cells, -1)
    return SplatPlan.of(cells, grid.num_cells)


def to_volumes(depth_prob: Tensor, context: Tensor, plan: SplatPlan, grid: BevGrid) -> Tensor:
    """(B, context, Z, Y, X) of depth probabilities (B, N, D, h, w) and context (B, N, context, h, w)."""
    nx, ny = grid.shape
    return splat(depth_prob, context, plan).unflatten(2, (grid.heights, ny, nx)).contiguous()
