"""Stereo in time (STS, arXiv 2208.10145): at which depth would a pixel look like what was there one frame earlier?"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.lift_splat import frustum

STRIDE = 4  # of the features that are compared
NEAREST = 1e-3  # m in front of the earlier camera
OUTSIDE = -2.0  # a place that no image has, in the coordinates of `grid_sample`


class Rays(NamedTuple):
    """The pixels' rays as an earlier camera saw them: at depth d, a point's homogeneous pixel is d * towards + origin.

    towards: (M, 3, h, w) and origin: (M, 3), of the earlier camera's stored image. linear (M, 2, 2) and shift (M, 2):
    from there to the network's input, of `image_size` (H, W).
    """

    towards: Tensor
    origin: Tensor
    linear: Tensor
    shift: Tensor
    image_size: tuple[int, int]

    def places(self, depth: Tensor) -> Tensor:
        """Where the earlier image shows the points at `depth` (m): (M, h, w, 2), x and y from -1 to 1 in it."""
        x, y, z = (depth * self.towards + self.origin[:, :, None, None]).unbind(1)
        stored = torch.stack([x / z, y / z], -1)
        pixels = torch.einsum("mij,mhwj->mhwi", self.linear, stored) + self.shift[:, None, None]
        height, width = self.image_size
        places = torch.stack([2 * pixels[..., 0] / (width - 1) - 1, 2 * pixels[..., 1] / (height - 1) - 1], -1)
        return torch.where((z < NEAREST)[..., None], OUTSIDE, places)


def rays(
    image_size: tuple[int, int],
    to_earlier: Tensor,
    intrinsics: tuple[Tensor, Tensor],
    post_homography: tuple[Tensor, Tensor],
) -> Rays:
    """The rays of M cameras' pixels at stride 4.

    to_earlier: (M, 4, 4), camera -> the same camera one frame earlier. intrinsics (M, 3, 3) and post_homography
    (M, 4, 4): now, and one frame earlier.
    """
    one = to_earlier.new_ones(1)
    pixels = frustum(one, image_size, STRIDE)[0]  # (h, w, 3): u, v, 1
    post, earlier_post = post_homography
    back = torch.inverse(post[:, :3, :3])
    stored = torch.einsum("mij,mhwj->mihw", back, pixels - post[:, None, None, :3, 3])
    lens = intrinsics[1] @ to_earlier[:, :3, :3] @ torch.inverse(intrinsics[0])
    origin = (intrinsics[1] @ to_earlier[:, :3, 3:])[..., 0]
    towards = torch.einsum("mij,mjhw->mihw", lens, stored)
    return Rays(towards, origin, earlier_post[:, :2, :2], earlier_post[:, :2, 3], image_size)


@torch.no_grad()
def cost_volume(current: Tensor, earlier: Tensor, seen: Rays, depths: Tensor, bias: float) -> Tensor:
    """How well each depth explains each pixel: (M, D, h, w), a softmax over the depths (D,), m. Without gradients.

    current, earlier: features (M, C, h, w) at stride 4. A depth costs the sum over the channels of the features'
    absolute difference, and `bias` more where the point was not in the earlier image.
    """
    current, earlier = (features.to(seen.towards.dtype) for features in (current, earlier))  # fp32 under autocast
    height, width = earlier.shape[-2:]
    costs = current.new_empty(len(current), len(depths), height, width)
    for number, depth in enumerate(depths):  # bin by bin: the warped features of all bins would be D times as large
        places = seen.places(depth)
        warped = F.grid_sample(earlier, places, mode="bilinear", padding_mode="zeros", align_corners=True)
        x, y = (places[..., 0] + 1) / 2 * (width - 1), (places[..., 1] + 1) / 2 * (height - 1)
        missed = (x <= -1) | (x >= width) | (y <= -1) | (y >= height)
        costs[:, number] = warped.sub_(current).abs_().sum(1).add_(missed, alpha=bias)
    return costs.neg_().softmax(1)
