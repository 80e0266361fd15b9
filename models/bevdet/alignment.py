"""An earlier frame's BEV brought to where the ego is now: BEVDet4D's alignment after the splat (arXiv 2203.17054)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cameras import Cameras
from models.constants import constant
from models.lift_splat import BevGrid
from models.rays import inverse
from models.shapes import check_shape


def sampling_grid(cameras: Cameras, frame: int, grid: BevGrid, at_corners: bool = False) -> Tensor:
    """Where an earlier frame's map shows each cell of the key frame's: (B, Y, X, 2) float32, x and y from -1 to 1.

    The earlier map stands around the ego of its own time, under the same BEV augmentation. The ego's motion is the
    first camera's, in the plane. at_corners: takes cells to stand at their lower corners, not their centres, as the
    released detectors do: where the ego turns by an angle a (rad), maps come out 0.7 a of a cell off.
    """
    key, earlier = (cameras.camera_to_bev(f)[:, 0] for f in (0, frame))
    motion = (key @ inverse(earlier))[:, [0, 1, 3]][:, :, [0, 1, 3]]  # (B, 3, 3): p -> where it was seen
    nx, ny = grid.shape
    half = 0.0 if at_corners else 0.5
    x0, y0 = grid.x[0] + half * grid.cell, grid.y[0] + half * grid.cell
    to_metres = constant(((grid.cell, 0, x0), (0, grid.cell, y0), (0, 0, 1)), motion.dtype, motion.device)
    cells = inverse(to_metres) @ motion @ to_metres
    y, x = torch.meshgrid(*(torch.arange(n, device=cells.device).to(cells) for n in (ny, nx)), indexing="ij")
    moved = torch.stack([x, y, torch.ones_like(x)], -1) @ cells.transpose(-1, -2)[:, None]  # (B, Y, X, 3)
    return (2 * moved[..., :2] / constant((nx - 1, ny - 1), moved.dtype, moved.device) - 1).float()


def aligned(bev: Tensor, places: Tensor) -> Tensor:
    """The earlier map (B, C, Y, X), read at the places of `sampling_grid`; zero where it does not reach.

    Read in float32: in bf16 a place would be off by up to a quarter of a cell in 128.
    """
    check_shape("places", places, len(bev), None, None, 2)
    read = F.grid_sample(bev.to(places.dtype), places, mode="bilinear", padding_mode="zeros", align_corners=True)
    return read.to(bev.dtype)
