"""Plain masked image modelling: the same masked encoder rebuilds the pixels that each half hides, image by image.

What GeoMIM is held against: SimMIM's and MixMAE's target (arXiv 2111.09886, 2205.13137) without LiDAR, depth or other
cameras.
"""

import torch
from torch import Tensor, nn

from models.backbones.swin import Swin
from models.geomim.decoder import Decoder
from models.geomim.model import Fusion
from models.initialise import init_linear
from models.masking import upsample_groups

EPS = 1e-6  # of a token's variance


class PixelMIM(nn.Module):
    """Backbone and decoder of GeoMIM; the head gives each token its s x s pixels, s the stride of stage 3.

    decoder: one without cross-view attention and geometry branch. fusion_heads: as in GeoMIM.
    """

    def __init__(self, backbone: Swin, decoder: Decoder, fusion_heads: int):
        super().__init__()
        self.backbone = backbone
        self.fusion = Fusion(backbone.channels[2], fusion_heads)
        self.decoder = decoder
        self.head = nn.Linear(decoder.norm.normalized_shape[0], 3 * backbone.strides[2] ** 2)
        init_linear(self.head)

    def forward(self, images: Tensor, groups: Tensor) -> Tensor:
        """Normalised pixels (2, M, h, w, 3 s^2) of every token: from group 0, from group 1.

        images: (M, 3, H, W); groups: (1 or M, H/2s, W/2s), see `models.masking`.
        """
        _, _, c4, c5 = self.backbone(images, groups)
        fused_groups = upsample_groups(groups, *c4.shape[-2:])
        fused = self.fusion(c4, c5, fused_groups)
        semantic = self.decoder(fused, fused_groups, camera=None, views=1).semantic
        return self.head(semantic.permute(0, 2, 3, 1)).unflatten(0, (2, -1))


def pixel_loss(made: Tensor, images: Tensor, groups: Tensor) -> Tensor:
    """Mean squared error of `PixelMIM`'s pixels where the half does not see them, mean of the two halves."""
    target = pixel_target(images, images.shape[-1] // made.shape[-2])
    groups = upsample_groups(groups, *target.shape[1:3]).expand(target.shape[:3])
    first, second = (_mean_where(groups != half, made[half].float() - target) for half in (0, 1))
    return (first + second) / 2


def _mean_where(counts: Tensor, errors: Tensor) -> Tensor:
    """Mean square of errors (..., C) where `counts` (...)."""
    return torch.where(counts[..., None], errors, 0).square().sum() / (counts.sum() * errors.shape[-1])


def pixel_target(images: Tensor, stride: int) -> Tensor:
    """Pixels (M, H/s, W/s, 3 s^2) of every token, less their mean and over their deviation (unbiased)."""
    patches = _patches(images, stride)
    return (patches - patches.mean(-1, keepdim=True)) / torch.sqrt(patches.var(-1, keepdim=True) + EPS)


def pixel_images(pixels: Tensor, images: Tensor, groups: Tensor) -> Tensor:
    """Images (M, 3, H, W) whose hidden tokens are those that group 0 rebuilt, each with its true mean and deviation.

    pixels: (M, H/s, W/s, 3 s^2), the first half of `PixelMIM`'s.
    """
    stride = images.shape[-1] // pixels.shape[-2]
    patches = _patches(images, stride)
    rebuilt = pixels * torch.sqrt(patches.var(-1, keepdim=True) + EPS) + patches.mean(-1, keepdim=True)
    hidden = upsample_groups(groups, *pixels.shape[1:3])[..., None] != 0
    tokens = torch.where(hidden, rebuilt, patches).unflatten(-1, (3, stride, stride))  # (M, h, w, 3, s, s)
    return tokens.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _patches(images: Tensor, stride: int) -> Tensor:
    """The pixels (M, h, w, 3 s^2) of every token of images (M, 3, H, W)."""
    patches = images.float().unflatten(3, (-1, stride)).unflatten(2, (-1, stride))  # (M, 3, h, s, w, s)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3)
