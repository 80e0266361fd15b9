"""GeoMIM's way to the bird's eye: depth from both decoder maps, lift-splat, three convolutions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.cameras import Cameras
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid, SplatPlan, bev_cells, splat
from models.rays import feature_pixels, pixel_rays


@dataclass(frozen=True)
class ViewTransformSpec:
    """Everything of a view transform but its weights and what comes in.

    bins: of depth. grid: splatted cells; the output has 1 / `downsample` as many a side. context: channels lifted into
    the BEV. truncate: the original's rounding toward zero at the lower borders (see `bev_cells`).
    """

    bins: DepthBins
    grid: BevGrid
    context: int = 80
    downsample: int = 2
    truncate: bool = False


class ViewTransform(nn.Module):
    """Depth net, lift-splat and BEV convolutions: (B, N, C, h, w) maps -> (B, context, X, Y).

    dim: channels of each decoder map.
    """

    def __init__(self, dim: int, spec: ViewTransformSpec):
        super().__init__()
        self.spec, self.bins, self.grid = spec, spec.bins, spec.grid
        context = spec.context
        self.depth_net = nn.Sequential(
            nn.Conv2d(2 * dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, spec.bins.count + context, 1),
        )
        layers = []
        for stride in (1, spec.downsample, 1):
            layers += [
                nn.Conv2d(context, context, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(context),
                nn.ReLU(inplace=True),
            ]
        self.downsample = nn.Sequential(*layers)

    def plan(self, cameras: Cameras, image_size: tuple[int, int], stride: int) -> SplatPlan:
        """Of the splats of the cameras' images, both halves'."""
        return SplatPlan.of(self.cells(cameras, image_size, stride), self.grid.num_cells)

    def cells(self, cameras: Cameras, image_size: tuple[int, int], stride: int) -> Tensor:
        """Flat BEV cell of every frustum point, int32 (B, N, D, h, w), -1 outside."""
        device = cameras.intrinsics.device
        rays = pixel_rays(cameras.lens(), cameras.camera_to_bev(), feature_pixels(image_size, stride, device))
        return bev_cells(rays.at(self.bins.edges(device)), self.grid, truncate=self.spec.truncate)

    def forward(self, semantic: Tensor, geometry: Tensor, plan: SplatPlan) -> tuple[Tensor, Tensor]:
        """BEV (B, context, X, Y) and depth probabilities (B, N, D, h, w) of maps (B, N, dim, h, w)."""
        depth_prob, context = self.lift(semantic, geometry)
        return self.to_bev(depth_prob, context, plan), depth_prob

    def lift(self, semantic: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Depth probabilities (B, N, D, h, w) and context (B, N, context, h, w) of maps (B, N, dim, h, w)."""
        out = self.depth_net(torch.cat([geometry, semantic], 2).flatten(0, 1)).unflatten(0, semantic.shape[:2])
        return out[:, :, : self.bins.count].softmax(2), out[:, :, self.bins.count :]

    def to_bev(self, depth_prob: Tensor, context: Tensor, plan: SplatPlan) -> Tensor:
        """BEV (B, context, X, Y) of what is lifted."""
        bev = splat(depth_prob, context, plan)
        # A cell's channels lie side by side, which is what a GPU's convolutions like: viewed in this order, torch sees
        # channels-last maps and copies nothing. A CPU's batch norm would add such maps up in fp32, too coarsely.
        bev = bev.transpose(1, 2).unflatten(1, self.grid.shape).permute(0, 3, 1, 2)
        if bev.device.type == "cpu":
            bev = bev.contiguous()
        return self.downsample(bev)
