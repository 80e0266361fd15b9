"""Plain masked image modelling, what GeoMIM is held against: no LiDAR, no depth, no other cameras."""

from typing import ClassVar, Literal

from pydantic import Field

from batches.image_config import ImageConfig
from batches.mask_config import MaskConfig
from models.backbones.build import BackboneConfig
from tasks.pretrain.method_config import MethodConfig
from tasks.pretrain.methods.geomim import DecoderSize


class Config(MaskConfig, MethodConfig):
    """Masked images in, the hidden pixels out (SimMIM's and MixMAE's target, arXiv 2111.09886 and 2205.13137)."""

    name: Literal["pixels"] = "pixels"
    entry: ClassVar[str] = "tasks.pretrain.pixels:PixelPretraining"

    decoder: DecoderSize = Field(default_factory=DecoderSize)

    def check(self, image: ImageConfig, backbone: BackboneConfig, init: str | None) -> None:
        self.mask_grid(image.size, backbone.strides[-1])
