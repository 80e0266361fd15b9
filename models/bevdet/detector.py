"""The BEVDet family (arXiv 2112.11790, 2203.17054): cameras to boxes through one bird's-eye-view map.

Everything is in the key frame's EGO frame, maps laid out (B, C, Y, X). Backbone -> image neck -> a depth distribution
and a context vector per feature pixel -> splat into the BEV grid -> beside it the same of earlier frames, in the key
frame's place -> residual encoder -> neck -> head.

| released as        | frames | camera_aware | stereo |
|--------------------|--------|--------------|--------|
| BEVDet             | 1      |              |        |
| BEVDet4D           | 2      |              |        |
| BEVDepth4D         | 2      | yes          |        |
| BEVStereo4D        | 2      | yes          | yes    |
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.bevdet import cost_volume
from models.bevdet.alignment import aligned, sampling_grid
from models.bevdet.depth_net import CameraDepthNet
from models.bevdet.encoder import ResidualEncoder, ResidualSpec
from models.bevdet.necks import FpnLss, FpnSpec
from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.head import Head
from models.lift_splat import BevGrid, SplatPlan, bev_cells, splat
from models.norm import LIKE_TORCH, Norm
from models.rays import Rays, feature_pixels, pixel_rays
from models.uncompiled import uncompiled


@dataclass(frozen=True)
class BevDetSpec:
    """Everything of a detector but its weights, its backbone and its head.

    grid, depth_bins, image_size (H, W): see `models.lift_splat`.
    image_neck: of the backbone's two maps. context: channels of the lifted features.
    bev_encoder, bev_neck: of the lifted map; what comes out is as fine as the grid.
    frames: whose maps enter the BEV encoder: the key frame and frames - 1 earlier ones. Gradients flow into the key
        frame only. pre_blocks: residual blocks that each frame's map goes through before, where there are several.
    camera_aware: depth from `CameraDepthNet`, which is told of the camera, instead of one 1x1 convolution.
    aspp_width: see there.
    stereo: depth from `cost_volume` too; takes one earlier frame more, with which the earliest is compared.
    stereo_bias: see there.
    align_after_splat: splat earlier frames around the ego of their own time and move the maps (`alignment`), instead of
        splatting them straight into the key frame's place.
    truncate_cells: round points to cells as the released detectors do, see `bev_cells`.
    align_at_corners: move maps as the released detectors do, see `sampling_grid`.

    Raises ValueError where they do not fit together.
    """

    grid: BevGrid
    depth_bins: DepthBins
    image_size: tuple[int, int]
    image_neck: FpnSpec
    context: int
    bev_encoder: ResidualSpec
    bev_neck: FpnSpec
    frames: int = 1
    pre_blocks: int = 2
    camera_aware: bool = False
    aspp_width: int = 96
    stereo: bool = False
    stereo_bias: float = 5.0
    align_after_splat: bool = False
    truncate_cells: bool = False
    align_at_corners: bool = False

    def __post_init__(self) -> None:
        if self.stereo and not self.camera_aware:
            raise ValueError("stereo needs the camera-aware depth net")
        if self.stereo and self.image_neck.extra_scale != 1:
            raise ValueError("stereo needs an image neck that makes its map no finer")
        if self.image_neck.inputs != (0, 1) or self.image_neck.scale != 2:
            raise ValueError("the image neck takes the backbone's last two stages, of which one is twice as fine")
        fine, coarse = self.bev_neck.inputs
        strides = [math.prod(self.bev_encoder.strides[: stage + 1]) for stage in range(len(self.bev_encoder.strides))]
        if not 0 <= fine < coarse < len(strides) or strides[coarse] != strides[fine] * self.bev_neck.scale:
            raise ValueError(f"{self.bev_neck} does not fit stages with strides {strides}")
        if strides[fine] != self.bev_neck.extra_scale:
            raise ValueError(f"{self.bev_neck} makes no map as fine as the grid from one of stride {strides[fine]}")


class FrameGeometry(NamedTuple):
    """What the network is told of a frame's cameras. Data, the same bits in every precision."""

    vector: Tensor  # (B, N, 27), see `Cameras.scene_vector`
    plan: SplatPlan
    earlier: Rays | None  # of B N cameras, see `cost_volume.rays`; None where depth is not told by stereo
    places: Tensor | None  # see `sampling_grid`; None where the map is in its place


class BevDet(nn.Module):
    """A camera detector of one or more frames.

    backbone: the maps of its two `out_indices` are used, of which the finer one is lifted; the first stage's for
    stereo. head: what makes boxes of the map (B, C, Y, X) of the BEV neck; kept here so that its weights belong to the
    detector. norm: of all between the two.
    """

    def __init__(self, backbone: Backbone, head: Head, spec: BevDetSpec, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        fine, coarse = backbone.out_indices
        self.image_neck = FpnLss((backbone.channels[fine], backbone.channels[coarse]), spec.image_neck, norm)
        image_out, bins, context = spec.image_neck.out, spec.depth_bins.count, spec.context
        self.depth_net: CameraDepthNet | nn.Conv2d
        if spec.camera_aware:
            self.depth_net = CameraDepthNet(image_out, bins, context, spec.aspp_width, spec.stereo, norm)
        else:
            self.depth_net = nn.Conv2d(image_out, bins + context, 1)
        before = ResidualSpec((context,), (spec.pre_blocks,), (1,))
        self.pre_encoder = ResidualEncoder(context, before, norm) if spec.frames > 1 else None
        self.bev_encoder = ResidualEncoder(context * spec.frames, spec.bev_encoder, norm)
        fine, coarse = spec.bev_neck.inputs
        self.bev_neck = FpnLss((spec.bev_encoder.widths[fine], spec.bev_encoder.widths[coarse]), spec.bev_neck, norm)
        self.head = head

    @property
    def stride(self) -> int:
        """Of the image feature map that is lifted."""
        return self.backbone.strides[self.backbone.out_indices[0]] // self.spec.image_neck.extra_scale

    @property
    def input_frames(self) -> int:
        """T: how many frames the detector is fed."""
        return self.spec.frames + int(self.spec.stereo)

    @uncompiled
    @torch.no_grad()
    def geometry(self, cameras: Cameras) -> tuple[FrameGeometry, ...]:
        """What `forward` takes of the cameras, for each frame that has a map; made outside of it, once a batch."""
        return tuple(self.frame_geometry(cameras, frame) for frame in range(self.spec.frames))

    def frame_geometry(self, cameras: Cameras, frame: int) -> FrameGeometry:
        """What `lift` takes of a frame's cameras."""
        compared = self.spec.stereo and frame + 1 < cameras.intrinsics.shape[1]
        moved = self.spec.align_after_splat and frame > 0
        return FrameGeometry(
            cameras.scene_vector(frame),
            SplatPlan.of(self.cells(cameras, frame), self.spec.grid.num_cells),
            cost_volume.rays(cameras, frame, self.spec.image_size, self.backbone.strides[0]) if compared else None,
            sampling_grid(cameras, frame, self.spec.grid, self.spec.align_at_corners) if moved else None,
        )

    def cells(self, cameras: Cameras, frame: int) -> Tensor:
        """Flat BEV cell y * nx + x of every frustum point of a frame, int32 (B, N, D, h, w), -1 outside."""
        device = cameras.intrinsics.device
        pose = cameras.camera_to_bev(0 if self.spec.align_after_splat else frame)
        rays = pixel_rays(cameras.lens(frame), pose, feature_pixels(self.spec.image_size, self.stride, device))
        points = rays.at(self.spec.depth_bins.edges(device))
        return bev_cells(points, self.spec.grid, order="yx", truncate=self.spec.truncate_cells)

    def forward(
        self, images: Tensor, cameras: tuple[FrameGeometry, ...], with_previous: bool = True
    ) -> tuple[Tensor, Tensor]:
        """images (B, T, N, 3, H, W), normalised -> BEV map (B, bev_out, Y, X), depth probabilities (B, N, D, h, w).

        cameras: see `geometry`. with_previous: False looks at the key frame only and puts zeros in place of the earlier
        maps, as in the first epochs of training.
        """
        maps, depth_prob = self.frame_maps(images, cameras, with_previous)
        return self.encode(torch.cat(maps, 1)), depth_prob

    def frame_maps(
        self, images: Tensor, cameras: tuple[FrameGeometry, ...], with_previous: bool = True
    ) -> tuple[list[Tensor], Tensor]:
        """Each frame's map (B, context, Y, X) in the key frame's place, and the key frame's depth probabilities."""
        if images.shape[1] != self.input_frames:
            raise ValueError(f"the detector looks at {self.input_frames} frames, not at {images.shape[1]}")
        maps: list[Tensor] = []
        fine = None
        if with_previous:
            with torch.no_grad():
                if self.spec.stereo:
                    (fine,) = self.backbone(images[:, -1].flatten(0, 1), stop_at=0)
                for frame in range(self.spec.frames - 1, 0, -1):
                    bev, _, fine = self.lift(images[:, frame], cameras[frame], fine)
                    maps.insert(0, self._in_place(self._pre_encoded(bev), cameras[frame].places))
        bev, depth_prob, _ = self.lift(images[:, 0], cameras[0], fine)
        key = self._pre_encoded(bev)
        if not with_previous:
            maps = [torch.zeros_like(key)] * (self.spec.frames - 1)
        return [key, *maps], depth_prob

    def lift(
        self, images: Tensor, cameras: FrameGeometry, earlier: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One frame's images (B, N, 3, H, W), splatted.

        earlier: fine features (B N, C, h, w) of the frame before, for stereo, where there is one. Returns the map
        (B, context, Y, X), depth probabilities (B, N, D, h, w) and the frame's own fine features.
        """
        batch, count = images.shape[:2]
        stages = self.backbone(images.flatten(0, 1))
        fine = stages[0]
        features = self.image_neck(*(stages[index] for index in self.backbone.out_indices))
        if self.spec.camera_aware:
            cost = None
            if earlier is not None and cameras.earlier is not None:  # there are no rays without stereo
                cost = self.compare(fine, earlier, cameras.earlier)
            lifted = self.depth_net(features, cameras.vector.flatten(0, 1), cost)
        else:
            lifted = self.depth_net(features)
        lifted = lifted.unflatten(0, (batch, count))
        depth_prob = lifted[:, :, : self.spec.depth_bins.count].softmax(2)
        context = lifted[:, :, self.spec.depth_bins.count :]
        nx, ny = self.spec.grid.shape
        bev = splat(depth_prob, context, cameras.plan).unflatten(2, (ny, nx))
        return bev, depth_prob, fine

    def compare(self, fine: Tensor, earlier: Tensor, seen: Rays) -> Tensor:
        """The cost volume (B N, D, h, w) of a frame's fine features and those of the frame before."""
        depths = self.spec.depth_bins.edges(fine.device)
        return cost_volume.cost_volume(fine, earlier, seen, depths, self.spec.stereo_bias, self.backbone.strides[0])

    def encode(self, bev: Tensor) -> Tensor:
        """The frames' maps one after the other (B, frames * context, Y, X) -> (B, bev_out, Y, X)."""
        maps = self.bev_encoder(bev)
        return self.bev_neck(*(maps[stage] for stage in self.spec.bev_neck.inputs))

    def _pre_encoded(self, bev: Tensor) -> Tensor:
        return bev if self.pre_encoder is None else self.pre_encoder(bev)[0]

    @staticmethod
    def _in_place(bev: Tensor, places: Tensor | None) -> Tensor:
        return bev if places is None else aligned(bev, places)
