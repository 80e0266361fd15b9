"""GeoMIM (arXiv 2303.11325): a camera backbone learns geometry by rebuilding LiDAR BEV features from half an image."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.swin import Swin, SwinBlock
from models.cameras import Cameras
from models.depth_bins import depth_loss
from models.geomim.decoder import Decoder, DecoderMaps, DecoderSpec
from models.geomim.target import normalise_patches, reconstruction_loss
from models.geomim.view_transform import ViewTransform, ViewTransformSpec
from models.initialise import init_linear
from models.lift_splat import SplatPlan
from models.masking import upsample_groups
from models.uncompiled import uncompiled


class CameraGeometry(NamedTuple):
    """What the network is told of a batch's cameras. Data, the same bits in every precision."""

    vector: Tensor  # (B, N, 22), see `Cameras.vector`
    plan: SplatPlan  # of both halves' splats


class Reconstruction(NamedTuple):
    bev: Tensor  # (2, B, C, X, Y): from group 0, from group 1
    depth_prob: Tensor  # (2, B, N, D, h, w)


class Losses(NamedTuple):
    total: Tensor
    reconstruction: Tensor
    depth: Tensor  # unweighted


class Fusion(nn.Module):
    """Stages 3 and 4 to one map at stage 3's stride: upsampled, added, smoothed by one window block (masked alike)."""

    def __init__(self, channels: int, num_heads: int, window: int = 7):
        super().__init__()
        self.project = nn.Linear(2 * channels, channels)
        self.block = SwinBlock(channels, num_heads, window, mlp_ratio=4.0, drop_path=0.0, padding_visible=True)
        self.norm = nn.LayerNorm(channels)
        init_linear(self)

    def forward(self, c4: Tensor, c5: Tensor, groups: Tensor | None) -> Tensor:
        """c4: (M, C, h, w); c5: (M, 2C, h/2, w/2); groups: (1 or M, h, w). Returns (M, h, w, C)."""
        top = self.project(c5.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        fused = c4 + F.interpolate(top, c4.shape[-2:], mode="nearest")
        fused = fused.permute(0, 2, 3, 1)
        return self.norm(self.block(fused, self.block.attn.windows(fused, groups)))


@dataclass(frozen=True)
class GeoMIMSpec:
    """Everything of a GeoMIM but its weights and its backbone.

    view: to the target's grid. fusion_heads: attention heads of the fusion block (the backbone's in stage 3).
    target_channels: channels of the teacher's BEV. patch: cells a side over which the target is normalised.
    depth_weight: weight of the depth loss.
    """

    decoder: DecoderSpec
    view: ViewTransformSpec
    fusion_heads: int
    target_channels: int
    patch: int = 18
    depth_weight: float = 0.01


class GeoMIM(nn.Module):
    """The student with its view transform and prediction head.

    Args:
        backbone: the Swin to pretrain.
    """

    def __init__(self, backbone: Swin, spec: GeoMIMSpec):
        super().__init__()
        # The order of the draws is one thing, that of the weights in files and optimisers another.
        decoder = Decoder(backbone.channels[2], spec.decoder)
        view_transform = ViewTransform(spec.decoder.width, spec.view)
        self.backbone, self.stride = backbone, backbone.strides[2]
        self.fusion = Fusion(backbone.channels[2], spec.fusion_heads)
        self.decoder = decoder
        self.view_transform = view_transform
        self.head = nn.Conv2d(spec.view.context, spec.target_channels, 1)
        self.patch, self.depth_weight = spec.patch, spec.depth_weight

    @uncompiled
    @torch.no_grad()
    def geometry(self, cameras: Cameras, image_size: tuple[int, int]) -> CameraGeometry:
        """What `forward` takes of the cameras; made outside of it, once a batch. image_size: (H, W) of its images."""
        return CameraGeometry(cameras.vector(), self.view_transform.plan(cameras, image_size, self.stride))

    def forward(self, images: Tensor, cameras: CameraGeometry, groups: Tensor) -> Reconstruction:
        """See `reconstruct`."""
        return self.reconstruct(images, cameras, groups)

    def reconstruct(self, images: Tensor, cameras: CameraGeometry, groups: Tensor) -> Reconstruction:
        """Both reconstructions of the BEV.

        images: (B, N, 3, H, W); cameras: see `geometry`; groups: (1 or B*N, h, w), see `models.masking`.
        """
        maps = self.decode(images, cameras.vector, groups)
        # One half after the other, as in the original: each is a batch of its own to the batch norms.
        halves = []
        for semantic, geometry in zip(maps.semantic.chunk(2), maps.geometry.chunk(2), strict=True):
            per_sample = images.shape[:2]
            bev, depth_prob = self.view_transform(
                semantic.unflatten(0, per_sample), geometry.unflatten(0, per_sample), cameras.plan
            )
            halves.append((self.head(bev), depth_prob))
        return Reconstruction(*(torch.stack(parts) for parts in zip(*halves, strict=True)))

    def decode(
        self, images: Tensor, camera_vector: Tensor, groups: Tensor, halves: tuple[int, ...] = (0, 1)
    ) -> DecoderMaps:
        """Semantic and geometry maps (2 * B * N, C, H/stride, W/stride), group 0's images first.

        camera_vector: (B, N, 22). halves: see `Decoder.forward`.
        """
        _, _, c4, c5 = self.backbone(images.flatten(0, 1), groups)
        fused_groups = upsample_groups(groups, *c4.shape[-2:])
        fused = self.fusion(c4, c5, fused_groups)
        return self.decoder(fused, fused_groups, camera_vector.flatten(0, 1), images.shape[1], halves)

    def losses(self, made: Reconstruction, lidar_bev: Tensor, depth_map: Tensor) -> Losses:
        """Averaged over the two halves. lidar_bev: (B, C, X, Y); depth_map: (B, N, h, w), m, 0 where unknown."""
        target = normalise_patches(lidar_bev.float(), self.patch)
        labels = self.view_transform.bins.labels(depth_map)
        first, second = (reconstruction_loss(bev, target) for bev in made.bev)
        reconstruction = (first + second) / 2
        first, second = (depth_loss(prob, labels) for prob in made.depth_prob)
        depth = (first + second) / 2
        return Losses(reconstruction + self.depth_weight * depth, reconstruction, depth)
