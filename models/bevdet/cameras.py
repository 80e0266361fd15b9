"""Where the cameras of the key frame and of earlier frames look."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.geomim.decoder import camera_vector
from models.rays import inverse, lens

VECTOR = 27  # numbers that describe a camera to the depth net


class Cameras(NamedTuple):
    """N cameras in T frames of B samples: frame 0 is the key frame, later ones were taken earlier.

    intrinsics: (B, T, N, 3, 3) of the stored images.
    post_homography: (B, T, N, 4, 4), stored pixel (u, v, d, 1) -> pixel of the network's input.
    camera_to_ego: (B, T, N, 4, 4), each camera at its own time -> the KEY frame's ego.
    scene: (B, 4, 4), BEV augmentation: the key frame's ego -> the frame of the BEV. Linear, without a shift.

    What follows from them is float64, see models/rays.py.
    """

    intrinsics: Tensor
    post_homography: Tensor
    camera_to_ego: Tensor
    scene: Tensor

    def camera_to_bev(self, frame: int) -> Tensor:
        """(B, N, 4, 4)."""
        return self.scene.double()[:, None] @ self.camera_to_ego[:, frame].double()

    def lens(self, frame: int) -> Tensor:
        """(B, N, 3, 3), see `rays.lens`."""
        return lens(self.intrinsics[:, frame], self.post_homography[:, frame])

    def to_earlier(self, frame: int) -> Tensor:
        """Each camera in `frame` -> the same camera in the frame before it, (B, N, 4, 4)."""
        return inverse(self.camera_to_ego[:, frame + 1]) @ self.camera_to_ego[:, frame].double()

    def vector(self, frame: int) -> Tensor:
        """What the depth net is told of a frame's cameras, (B, N, 27): lens, image augmentation, scene, mounting.

        The mounting is the key frame's pose, for earlier frames too: how far the ego went says nothing of depth.
        """
        numbers = camera_vector(self.intrinsics[:, frame], self.post_homography[:, frame], self.camera_to_ego[:, 0])
        entries = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
        scene = torch.stack([self.scene[:, row, column] for row, column in entries], -1)
        scene = scene[:, None].expand(-1, numbers.shape[1], -1)
        return torch.cat([numbers[..., :10], scene, numbers[..., 10:]], -1)
