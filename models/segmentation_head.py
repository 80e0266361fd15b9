"""Bird's-eye-view segmentation: one yes-or-no map a layer, on the BEV map's own grid.

Layers and loss are those of BEVFusion's map head (arXiv 2205.13542): two 3x3 convolutions, a 1x1 one, and a sigmoid
focal loss (arXiv 1708.02002, gamma 2, no alpha). Layers overlap: a vehicle stands on the drivable area.
"""

from torch import Tensor, nn

from models.focal_loss import focal_loss
from models.head import Head
from models.names import BEV_LAYERS
from models.norm import LIKE_TORCH, Norm


class SegmentationHead(Head):
    """`channels` of the BEV map, `width` of the two hidden layers."""

    def __init__(self, channels: int, width: int, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            norm.over_maps(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm.over_maps(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, len(BEV_LAYERS), 1),
        )

    def forward(self, bev: Tensor) -> Tensor:
        """(B, channels, Y, X) -> logits (B, L, Y, X) of names.BEV_LAYERS."""
        return self.net(bev)

    def loss(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The mean focal loss of each layer; masks (B, L, Y, X) bool."""
        loss = focal_loss(logits.float(), masks).mean((0, 2, 3))
        return dict(zip(BEV_LAYERS, loss.unbind()))

    def predict(self, logits: Tensor) -> Tensor:
        """Probabilities (B, L, Y, X)."""
        return logits.float().sigmoid()
