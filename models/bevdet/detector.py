"""BEVDet (arXiv 2112.11790): six images to boxes through one bird's-eye-view map.

Everything is in the key frame's EGO frame, maps laid out (B, C, Y, X). Swin -> image neck at stride 16 -> a depth
distribution and a context vector per feature pixel -> splat into the BEV grid -> residual encoder -> neck -> head.
"""

from typing import NamedTuple

from torch import Tensor, nn

from models.bevdet.encoder import ResidualEncoder
from models.bevdet.necks import FpnLss
from models.depth_bins import DepthBins
from models.lift_splat import BevGrid, bev_cells, frustum, frustum_points, splat
from models.swin import Swin

STRIDE = 16  # of the image feature map that is lifted


class Cameras(NamedTuple):
    """Where N cameras of B samples look.

    intrinsics (B, N, 3, 3) of the stored images; post_homography (B, N, 4, 4), stored pixel (u, v, d, 1) -> pixel of
    the network's input; camera_to_bev (B, N, 4, 4), into the BEV frame, BEV augmentation included.
    """

    intrinsics: Tensor
    post_homography: Tensor
    camera_to_bev: Tensor


class BevDet(nn.Module):
    """One frame's camera detector.

    Args:
        backbone: its last two stages (strides 16 and 32) are used.
        head: what makes boxes of the map (B, bev_out, Y, X); kept here so that its weights belong to the detector.
        grid, depth_bins, image_size (H, W): see `models.lift_splat`.
        image_out: channels of the image neck. context: channels of the lifted features.
        bev_widths: of the three stages of the BEV encoder, each at half the resolution of the one before.
        bev_out: channels of the head's input.
        truncate_cells: round points to cells as the released detectors do, see `bev_cells`.
    """

    def __init__(
        self,
        backbone: Swin,
        head: nn.Module,
        grid: BevGrid,
        depth_bins: DepthBins,
        image_size: tuple[int, int],
        image_out: int,
        context: int,
        bev_widths: tuple[int, int, int],
        bev_out: int,
        truncate_cells: bool = False,
    ):
        super().__init__()
        self.grid, self.depth_bins, self.truncate_cells = grid, depth_bins, truncate_cells
        self.backbone = backbone
        self.image_neck = FpnLss((backbone.channels[2], backbone.channels[3]), image_out)
        self.depth_net = nn.Conv2d(image_out, depth_bins.count + context, 1)
        self.bev_encoder = ResidualEncoder(context, bev_widths)
        self.bev_neck = FpnLss((bev_widths[0], bev_widths[2]), bev_out, scale=4, extra_scale=2)
        self.head = head
        edges = depth_bins.edges().float()
        self.register_buffer("frustum", frustum(edges, image_size, STRIDE), persistent=False)

    def forward(self, images: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """images (B, N, 3, H, W), normalised -> BEV map (B, bev_out, Y, X), depth probabilities (B, N, D, h, w)."""
        bev, depth_prob = self.lift(images, cameras)
        return self.encode(bev), depth_prob

    def lift(self, images: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """The splatted context (B, context, Y, X), and depth probabilities (B, N, D, h, w)."""
        batch, count = images.shape[:2]
        fine, coarse = self.backbone(images.flatten(0, 1))[2:]
        features = self.depth_net(self.image_neck(fine, coarse)).unflatten(0, (batch, count))
        depth_prob = features[:, :, : self.depth_bins.count].softmax(2)
        context = features[:, :, self.depth_bins.count :]
        points = frustum_points(self.frustum, cameras.intrinsics, cameras.post_homography, cameras.camera_to_bev)
        cells = bev_cells(points, self.grid, order="yx", truncate=self.truncate_cells)
        nx, ny = self.grid.shape
        return splat(depth_prob, context, cells, nx * ny).unflatten(2, (ny, nx)), depth_prob

    def encode(self, bev: Tensor) -> Tensor:
        """(B, context, Y, X) -> (B, bev_out, Y, X)."""
        first, _, last = self.bev_encoder(bev)
        return self.bev_neck(first, last)
