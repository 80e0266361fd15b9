"""What of an image is hidden from the network."""

from pydantic import Field

from common.settings import Settings
from models.backbones.build import BackboneConfig
from models.backbones.config import SwinConfig


class MaskConfig(Settings):
    """Complementary halves: what one reconstruction sees is hidden from the other."""

    mask_ratio: float = Field(0.5, ge=0.5, lt=1, description="Share of the image hidden from each reconstruction.")
    mask_cell: int = Field(32, ge=1, description="Pixels a side of what is hidden as one.")
    mask_shared: bool = Field(True, description="One mask for all images of a step, or one for each.")

    def check_backbone(self, backbone: BackboneConfig) -> SwinConfig:
        """The same. Raises ValueError for one that cannot keep the halves of an image apart."""
        if not isinstance(backbone, SwinConfig):
            raise ValueError(
                f"backbone.name is {backbone.name}, and pretraining hides half of an image from a swin alone: set "
                "finetune.init to a checkpoint of yours or to random"
            )
        return backbone

    def mask_grid(self, size: tuple[int, int], stride: int) -> tuple[int, int]:
        """Cells down and across an image of `size` (height, width).

        stride: pixels a side of the backbone's coarsest token. Raises ValueError where one does not divide the other.
        """
        return mask_grid(self.mask_cell, size, stride)


def mask_grid(mask_cell: int, size: tuple[int, int], stride: int) -> tuple[int, int]:
    """See `MaskConfig.mask_grid`."""
    if mask_cell % stride:
        raise ValueError(f"mask_cell is {mask_cell}: it must be a multiple of the backbone's stride, {stride}")
    for side, pixels in zip(("height", "width"), size):
        if pixels % mask_cell:
            raise ValueError(f"the image's {side} of {pixels} is not a multiple of mask_cell, {mask_cell}")
    return size[0] // mask_cell, size[1] // mask_cell
