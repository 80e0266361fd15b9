"""Where the cameras of a key frame and of earlier frames look, and what a depth net is told of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.rays import inverse, lens
from models.shapes import check_shape

VECTOR, SCENE_VECTOR = 22, 27  # numbers that describe a camera to a depth net, without and with the augmented scene


@dataclass(frozen=True)
class Cameras:
    """N cameras in T frames of B samples: frame 0 is the key frame, later ones were taken earlier.

    intrinsics: (B, T, N, 3, 3) of the stored images.
    post_homography: (B, T, N, 4, 4), stored pixel (u, v, d, 1) -> pixel of the network's input.
    camera_to_frame: (B, T, N, 4, 4), each camera at its own time -> the KEY frame's LiDAR (GeoMIM) or ego (BEVDet).
    mounting: (B, N, 4, 4), camera -> ego, as the depth net is told of it.
    scene: (B, 4, 4), BEV augmentation: that frame -> the frame of the BEV. Linear, without a shift.

    What follows from them is float64, see models/rays.py. Raises ValueError for other shapes.
    """

    intrinsics: Tensor
    post_homography: Tensor
    camera_to_frame: Tensor
    mounting: Tensor
    scene: Tensor

    def __post_init__(self) -> None:
        batch, frames, views = self.intrinsics.shape[:3]
        check_shape("intrinsics", self.intrinsics, batch, frames, views, 3, 3)
        check_shape("post_homography", self.post_homography, batch, frames, views, 4, 4)
        check_shape("camera_to_frame", self.camera_to_frame, batch, frames, views, 4, 4)
        check_shape("mounting", self.mounting, batch, views, 4, 4)
        check_shape("scene", self.scene, batch, 4, 4)

    @classmethod
    def joined(cls, parts: Sequence["Cameras"]) -> "Cameras":
        """The samples of several as one batch."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def each(self, function: Callable[[Tensor], Tensor]) -> "Cameras":
        """The same with `function` of every tensor."""
        return Cameras(*(function(getattr(self, field.name)) for field in fields(self)))

    def camera_to_bev(self, frame: int = 0) -> Tensor:
        """(B, N, 4, 4)."""
        return self.scene.double()[:, None] @ self.camera_to_frame[:, frame].double()

    def lens(self, frame: int = 0) -> Tensor:
        """(B, N, 3, 3), see `rays.lens`."""
        return lens(self.intrinsics[:, frame], self.post_homography[:, frame])

    def to_earlier(self, frame: int) -> Tensor:
        """Each camera in `frame` -> the same camera in the frame before it, (B, N, 4, 4)."""
        return inverse(self.camera_to_frame[:, frame + 1]) @ self.camera_to_frame[:, frame].double()

    def vector(self, frame: int = 0) -> Tensor:
        """The numbers that describe a frame's cameras to GeoMIM, (B, N, 22): lens, image augmentation, mounting.

        They are data up to the batch norm that takes them, which is float32 in every precision (a focal length of
        1266 px has steps of 8 px in bf16); what follows it is network.
        """
        k, post = self.intrinsics[:, frame], self.post_homography[:, frame]
        numbers = [k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]]
        numbers += [post[..., row, column] for row in (0, 1) for column in (0, 1, 3)]
        return torch.cat([torch.stack(numbers, -1), self.mounting[..., :3, :].flatten(-2)], -1)

    def scene_vector(self, frame: int) -> Tensor:
        """The same for BEVDepth, (B, N, 27): the scene's augmentation before the mounting.

        The mounting is the key frame's, for earlier frames too: how far the ego went says nothing of depth.
        """
        numbers = self.vector(frame)
        entries = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
        scene = torch.stack([self.scene[:, row, column] for row, column in entries], -1)
        scene = scene[:, None].expand(-1, numbers.shape[1], -1)
        return torch.cat([numbers[..., :10], scene, numbers[..., 10:]], -1)
