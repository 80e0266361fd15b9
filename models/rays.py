"""Straight lines through pixels: what a camera's feature map looks along, in the frame of a map or of another image.

Geometry is data, not network: networks take what is made of cameras once a batch (their `geometry`), and make none of
it. It is float64, which autocast leaves alone, and nothing of it is compiled, since a compiler may join a product and a
sum and so round otherwise: points, cells and places are the same bits in every precision. (In bf16 points would be off
by a decimetre, up to a metre.)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.shapes import check_shape


class Rays(NamedTuple):
    """Of h x w pixels: at depth d (m, along the camera's axis) a pixel shows the point d * towards + origin.

    towards: (..., 3, h, w) and origin: (..., 3), float64.
    """

    towards: Tensor
    origin: Tensor

    def at(self, depths: Tensor) -> Tensor:
        """The points (..., D, h, w, 3) at depths (D,), m."""
        check_shape("depths", depths, None)
        towards, origin = self.towards.unsqueeze(-4), self.origin[..., None, :, None, None]
        return (depths.double()[:, None, None, None] * towards + origin).movedim(-3, -1)


def feature_pixels(image_size: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """(u, v) of a feature map's pixels in the network's input of `image_size` (H, W): (H/stride, W/stride, 2), float64.

    u runs evenly from 0 to W - 1 and v from 0 to H - 1 (the corners, not the patch centres: the field's convention,
    which trained weights expect).
    """
    height, width = image_size
    v, u = (torch.linspace(0, side - 1, side // stride, dtype=torch.float64, device=device) for side in (height, width))
    v, u = torch.meshgrid(v, u, indexing="ij")
    return torch.stack([u, v], -1)


def frustum(depths: Tensor, image_size: tuple[int, int], stride: int) -> Tensor:
    """Points (u, v, depth) of a camera's feature pixels at depths (D,), m: (D, H/stride, W/stride, 3), float64."""
    pixels = feature_pixels(image_size, stride, depths.device).expand(len(depths), -1, -1, -1)
    return torch.cat([pixels, depths.double()[:, None, None, None].expand(*pixels.shape[:3], 1)], -1)


def lens(intrinsics: Tensor, post_homography: Tensor) -> Tensor:
    """(..., 3, 3), float64: a point of the camera's frame -> (u z, v z, z), u and v in the network's input.

    intrinsics: (..., 3, 3) of the stored image; post_homography: (..., 4, 4), stored pixel (u, v, d, 1) -> pixel of the
    network's input.
    """
    check_shape("intrinsics", intrinsics, *intrinsics.shape[:-2], 3, 3)
    check_shape("post_homography", post_homography, *intrinsics.shape[:-2], 4, 4)
    k, post = intrinsics.double(), post_homography.double()
    affine = torch.cat([post[..., :2, :2], post[..., :2, 3:]], -1)  # (..., 2, 3)
    return torch.cat([affine @ k, k[..., 2:, :]], -2)


def pixel_rays(lens: Tensor, camera_to_frame: Tensor, pixels: Tensor) -> Rays:
    """The rays of cameras' pixels (h, w, 2) in a frame.

    lens: (..., 3, 3), see there; camera_to_frame: (..., 4, 4), or its first three rows.
    """
    check_shape("lens", lens, *lens.shape[:-2], 3, 3)
    check_shape("camera_to_frame", camera_to_frame, *lens.shape[:-2], 3 if camera_to_frame.shape[-2] == 3 else 4, 4)
    check_shape("pixels", pixels, None, None, 2)
    camera_to_frame = camera_to_frame.double()
    u_axis, v_axis, start = (camera_to_frame[..., :3, :3] @ inverse(lens))[..., None, None].unbind(-3)
    u, v = pixels.unbind(-1)
    return Rays(u_axis * u + v_axis * v + start, camera_to_frame[..., :3, 3])


def inverse(matrix: Tensor) -> Tensor:
    """Of (..., n, n), in float64. (`torch.linalg.inv` would wait for a GPU to say whether there is one.)"""
    return torch.linalg.inv_ex(matrix.double()).inverse
