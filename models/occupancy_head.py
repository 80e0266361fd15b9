"""Semantic occupancy from a bird's-eye-view map: its channels become heights.

FlashOcc's head (arXiv 2311.12058), BEVDet-Occ's on a map instead of a volume: a 3x3 convolution, then for every column
an MLP (softplus between) to all heights times all classes, and cross-entropy over the voxels that a camera sees.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.head import Head
from models.names import OCCUPANCY_CLASSES
from models.occupancy import SHAPE

CLASSES = len(OCCUPANCY_CLASSES)


class OccupancyHead(Head):
    """`channels` of the BEV map, which covers just the voxels' range; `width` of the hidden layer."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.final_conv = nn.Conv2d(channels, width, 3, padding=1)
        self.predictor = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.Softplus(), nn.Conv2d(2 * width, SHAPE[2] * CLASSES, 1)
        )

    def forward(self, bev: Tensor) -> Tensor:
        """(B, channels, Y, X), coarse maps are interpolated -> logits (B, 200, 200, 16, 18), voxels as [X, Y, Z]."""
        fine_YX = SHAPE[1::-1]
        if bev.shape[-2:] != fine_YX:
            bev = F.interpolate(bev, fine_YX, mode="bilinear", align_corners=False)
        logits = self.predictor(F.relu(self.final_conv(bev)))  # channel = height * classes + class
        return logits.unflatten(1, (SHAPE[2], CLASSES)).permute(0, 4, 3, 1, 2)

    def loss(self, logits: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy of the voxels in view: labels (B, X, Y, Z) of names.OCCUPANCY_CLASSES, seen bool."""
        learnt = torch.where(seen, labels.long(), -1)
        # Added up by `sum`: torch's own reduction adds millions of float32 numbers one to the other.
        losses = F.cross_entropy(logits.flatten(0, 3).float(), learnt.flatten(), ignore_index=-1, reduction="none")
        return {"occupancy": losses.sum() / seen.sum().clamp(min=1)}

    def predict(self, logits: Tensor) -> Tensor:
        """Labels (B, X, Y, Z) uint8."""
        return logits.argmax(-1).to(torch.uint8)
