"""A volume of features moved with the ego: what a frame saw, laid out around where the ego is in another frame."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.constants import constant
from models.rays import inverse
from models.shapes import check_shape
from models.uncompiled import operator

Place = tuple[float, float, float]  # x, y, z


def warp(volume: Tensor, low: Place, high: Place, target_to_source: Tensor) -> Tensor:
    """The volume of a source frame as seen from the target frame: (B, C, Z, Y, X), of the volume's dtype.

    Each target voxel's centre is carried into the source frame in metres and read there: trilinear, zero outside.

    volume: (B, C, Z, Y, X) around the source frame's LiDAR; low, high: its range along x, y, z in m, the same around
    the target's. target_to_source: (B, 4, 4) float64, LiDAR frame of the target -> of the source. Raises ValueError for
    other shapes.

    What the original calls scene flow is this motion of the ego: nothing that moves by itself is followed. Places are
    data, the same in every precision, and read in float32: in bf16 they would be off by a quarter of a voxel in 128.
    """
    check_shape("volume", volume, *[None] * 5)
    check_shape("target_to_source", target_to_source, len(volume), 4, 4)
    precision = torch.promote_types(volume.dtype, torch.float32)
    places = sampling_places(volume.shape[2:], low, high, target_to_source.to(volume.device)).to(precision)
    read = F.grid_sample(volume.to(precision), places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return read.to(volume.dtype)


def _empty(shape: Sequence[int], low: Place, high: Place, target_to_source: Tensor) -> Tensor:
    return target_to_source.new_empty(len(target_to_source), *shape, 3, dtype=torch.float64)


@operator("sampling_places(int[] shape, float[] low, float[] high, Tensor target_to_source) -> Tensor", _empty)
def sampling_places(shape: Sequence[int], low: Place, high: Place, target_to_source: Tensor) -> Tensor:
    """Where the source's volume shows each voxel of the target's: (B, Z, Y, X, 3) float64, x, y, z, each -1 at the
    range's lower end and 1 at its upper end.

    shape: (Z, Y, X); the rest as in `warp`.
    """
    ends = constant((tuple(low), tuple(high)), torch.float64, target_to_source.device)
    to_metres = torch.diag(torch.cat([(ends[1] - ends[0]) / 2, ends.new_ones(1)]))
    to_metres[:3, 3] = ends.mean(0)
    motion = inverse(to_metres) @ target_to_source.double() @ to_metres
    return F.affine_grid(motion[:, :3], [len(motion), 1, *shape], align_corners=False)


def warp_indices(volume: Tensor, target_to_source: Tensor) -> Tensor:
    """The original's warp, which takes metres for voxel indices: kept to compare with its outputs, of no other use.

    A turn is one about the volume's first voxel, and 1 m is one voxel: of 180 x 180 voxels of 0.6 m the one around the
    ego is read 4.3 m off after 1 m and 3 degrees. volume: (B, C, Z, Y, X); target_to_source: (B, 4, 4).
    """
    check_shape("volume", volume, *[None] * 5)
    depth, height, width = volume.shape[2:]
    return warp(volume, (-0.5, -0.5, -0.5), (width - 0.5, height - 0.5, depth - 0.5), target_to_source)
