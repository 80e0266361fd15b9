"""GeoMIM and MIM4D on one backbone, one decoder and one lift: what neither paper tried."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.backbones.swin import Swin
from models.cameras import Cameras
from models.geomim.model import CameraGeometry, GeoMIM, GeoMIMSpec, Reconstruction
from models.lift_splat import BevGrid
from models.masking import HIDDEN
from models.mim4d.network import to_volumes, volume_plan
from models.mim4d.video import RayBundle, Targets, VideoRendered, VideoRendering
from models.uncompiled import uncompiled


class Clip(NamedTuple):
    """What is rendered, as `MIM4D.forward` takes it."""

    images: Tensor  # (B, T, N, 3, H, W)
    visible: Tensor  # (B * T * N, h, w) bool
    cameras: CameraGeometry  # of B * T samples
    targets: Targets
    rays: RayBundle


class JointOutputs(NamedTuple):
    reconstruction: Reconstruction
    rendered: VideoRendered


class Joint(GeoMIM):
    """A GeoMIM whose lift also fills the volumes of a clip, which are rendered.

    GeoMIM's half images and MIM4D's clip are two inputs, masked each in its own way; what is hidden of a clip is a mask
    token to the decoder, as the other half is.

    Args:
        grid: of a frame's volume. video: takes as many channels as GeoMIM lifts. The others are GeoMIM's.
    """

    def __init__(self, backbone: Swin, spec: GeoMIMSpec, *, grid: BevGrid, video: VideoRendering):
        super().__init__(backbone, spec)
        self.volume_grid, self.video = grid, video

    @uncompiled
    @torch.no_grad()
    def clip_geometry(self, cameras: Cameras, image_size: tuple[int, int], there: Tensor) -> CameraGeometry:
        """As `geometry`, of a clip's B * T samples. there: see `network.volume_plan`."""
        plan = volume_plan(cameras, image_size, self.stride, self.view_transform.bins, self.volume_grid, there)
        return CameraGeometry(cameras.vector(), plan)

    def forward(  # type: ignore[override]  # a clip more than a GeoMIM takes
        self, images: Tensor, cameras: CameraGeometry, groups: Tensor, clip: Clip
    ) -> JointOutputs:
        """GeoMIM's outputs of its inputs, and the clip's frames, rendered."""
        return JointOutputs(self.reconstruct(images, cameras, groups), self.render(clip))

    def render(self, clip: Clip) -> VideoRendered:
        """The target frames of a clip."""
        return self.video(self.lift_clip(clip.images, clip.visible, clip.cameras), clip.targets, clip.rays)

    def lift_clip(self, images: Tensor, visible: Tensor, cameras: CameraGeometry) -> Tensor:
        """The volume of every frame (B, T, context, Z, Y, X), in its own LiDAR frame. See `Clip`."""
        batch, frames, views = images.shape[:3]
        groups = torch.where(visible, 0, HIDDEN)
        maps = self.decode(images.flatten(0, 1), cameras.vector, groups, halves=(0,))
        semantic, geometry = (part.unflatten(0, (batch * frames, views)) for part in maps)
        depth_prob, context = self.view_transform.lift(semantic, geometry)
        return to_volumes(depth_prob, context, cameras.plan, self.volume_grid).unflatten(0, (batch, frames))
