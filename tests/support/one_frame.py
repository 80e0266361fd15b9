"""Cameras of one frame."""

import torch
from torch import Tensor

from models.cameras import Cameras


def one_frame(intrinsics: Tensor, post_homography: Tensor, camera_to_frame: Tensor, mounting: Tensor) -> Cameras:
    """Of matrices (B, N, ...), the scene as it is."""
    frame = (matrices[:, None] for matrices in (intrinsics, post_homography, camera_to_frame))
    return Cameras(*frame, mounting, torch.eye(4).to(mounting).expand(len(mounting), 4, 4))
