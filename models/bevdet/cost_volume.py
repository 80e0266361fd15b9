"""Stereo in time (STS, arXiv 2208.10145): at which depth would a pixel look like what was there one frame earlier?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cameras import Cameras
from models.rays import Rays, feature_pixels, pixel_rays
from models.shapes import check_shape
from models.uncompiled import operator

NEAREST = 1e-3  # m in front of the earlier camera
OUTSIDE = -2.0  # a place that no image has, in the coordinates of `grid_sample`


def rays(cameras: Cameras, frame: int, image_size: tuple[int, int], stride: int) -> Rays:
    """The rays of B N cameras' pixels at `stride` as the cameras of the frame before saw them.

    Points are (u z, v z, z) of the earlier input. image_size: (H, W) of both inputs.
    """
    now, earlier = (cameras.lens(f).flatten(0, 1) for f in (frame, frame + 1))
    to_earlier = cameras.to_earlier(frame).flatten(0, 1)
    return pixel_rays(now, earlier @ to_earlier[..., :3, :], feature_pixels(image_size, stride, to_earlier.device))


def places(seen: Rays, depth: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Where the earlier image shows the points at `depth` (m): (M, h, w, 2) float32, x and y from -1 to 1 in it."""
    x, y, z = (depth * seen.towards + seen.origin[..., None, None]).unbind(1)
    height, width = image_size
    found = torch.stack([2 * (x / z) / (width - 1) - 1, 2 * (y / z) / (height - 1) - 1], -1)
    return torch.where((z < NEAREST)[..., None], OUTSIDE, found).float()


def cost_volume(current: Tensor, earlier: Tensor, seen: Rays, depths: Tensor, bias: float, stride: int) -> Tensor:
    """How well each depth explains each pixel: (M, D, h, w), a softmax over the depths (D,), m. Without gradients.

    current, earlier: features (M, C, h, w) at `stride`, compared in float32 also where they are bf16. seen: see `rays`.
    A depth costs the sum over the channels of the features' absolute difference, and `bias` more where the point was
    not in the earlier image.
    """
    check_shape("earlier", earlier, *current.shape)
    check_shape("seen", seen.towards, len(current), 3, *current.shape[2:])
    check_shape("depths", depths, None)
    return _cost_volume(current, earlier, seen.towards, seen.origin, depths, bias, stride)


def _empty(
    current: Tensor, earlier: Tensor, towards: Tensor, origin: Tensor, depths: Tensor, bias: float, stride: int
) -> Tensor:
    return current.new_empty(len(current), len(depths), *current.shape[2:], dtype=torch.float32)


# A compiler would unroll the loop over the depths, and may round their places otherwise.
@operator(
    "cost_volume(Tensor current, Tensor earlier, Tensor towards, Tensor origin, Tensor depths, float bias, int stride)"
    " -> Tensor",
    _empty,
)
def _cost_volume(
    current: Tensor, earlier: Tensor, towards: Tensor, origin: Tensor, depths: Tensor, bias: float, stride: int
) -> Tensor:
    seen = Rays(towards, origin)
    current, earlier = current.float(), earlier.float()
    height, width = earlier.shape[-2:]
    costs = current.new_empty(len(current), len(depths), height, width)
    for number, depth in enumerate(depths):  # bin by bin: the warped features of all bins would be D times as large
        grid = places(seen, depth, (stride * height, stride * width))
        warped = F.grid_sample(earlier, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        x, y = (grid[..., 0] + 1) / 2 * (width - 1), (grid[..., 1] + 1) / 2 * (height - 1)
        missed = (x <= -1) | (x >= width) | (y <= -1) | (y >= height)
        costs[:, number] = warped.sub_(current).abs_().sum(1).add_(missed, alpha=bias)
    return costs.neg_().softmax(1)
