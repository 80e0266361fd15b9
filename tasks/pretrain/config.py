"""What GeoMIM pretraining can be told. Defaults are the original's: Swin-B at 256x704 (8 GPUs, 2 samples each)."""

from typing import Literal

from pydantic import Field, model_validator

from common.settings import Settings, external_file, runtime
from models.backbones.config import SwinConfig
from tasks.backbone import BackboneConfig
from tasks.batches.image_config import ImageConfig
from tasks.memory import camera_sizes, check_memory
from tasks.training.settings import TrainingSettings

VERSION = 4


class DecoderConfig(Settings):
    """The decoder, thrown away after pretraining, and the paper's ablations of it."""

    width: int = Field(512, ge=4, multiple_of=4)
    num_heads: int = Field(16, ge=1)
    depth: int = Field(8, ge=4, multiple_of=4, description="Blocks of the semantic branch; geometry has half of them.")
    cross_view: bool = Field(True, description="Attention over image rows across the cameras.")
    geometry_branch: bool = Field(True, description="A branch of its own for depth.")
    camera_aware: bool = Field(True, description="Gate the geometry branch by the camera's parameters.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "DecoderConfig":
        if self.width % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}, which does not divide the width {self.width}")
        return self


class PretrainConfig(TrainingSettings):
    """Masked multi-view images in, the LiDAR teacher's BEV features out."""

    backbone: BackboneConfig = Field(default_factory=SwinConfig)
    image: ImageConfig = Field(default_factory=ImageConfig)
    decoder: DecoderConfig = Field(default_factory=DecoderConfig)
    init: str | None = external_file(
        None, "Checkpoint to begin from: MixMAE's (as in the original), a Swin's or a GeoMIM's; none: random weights."
    )

    public_config: str | None = external_file(
        None,
        "The public config of a whole GeoMIM in `init`, whose attention heads no shape tells: its YAML file. It must "
        "agree with ours.",
    )

    target: Literal["bev", "pixels"] = Field(
        "bev", description="GeoMIM's, or the hidden pixels: plain MIM without LiDAR, depth and other cameras."
    )
    mask_ratio: float = Field(0.5, ge=0.5, lt=1, description="Share of the image hidden from each reconstruction.")
    mask_cell: int = Field(32, ge=1, description="Pixels a side of what is hidden as one.")
    mask_shared: bool = Field(True, description="One mask for all images of a step, or one for each.")

    depth_bins: tuple[float, float, float] = Field((1.0, 60.0, 0.5), description="Nearest, farthest and step (m).")
    depth_sweeps: int = Field(9, ge=0, le=10, description="Previous LiDAR sweeps in the depth target.")
    reconstruction_weight: float = Field(1.0, ge=0, description="Of the BEV's loss; 0: depth is the only target.")
    depth_weight: float = Field(0.01, ge=0, description="Of the depth loss; 0: the BEV is the only target.")
    context: int = Field(80, ge=1, description="Channels lifted into the BEV.")
    height: tuple[float, float] = Field((-10.0, 10.0), description="Heights (m, LiDAR frame) that are lifted.")
    splat_ratio: Literal[1, 2] = Field(2, description="Splatted cells per cell of the teacher's grid, along each axis.")
    patch: int = Field(18, ge=1, description="Cells a side over which the target is normalised.")
    bev_flip: bool = Field(
        True, description="Mirror the scene at random along x and along y; exactly, if teacher.flips are cached."
    )

    steps: int = Field(88_000, ge=1, description="Optimiser steps; 88,000 of 16 samples pass 50 times over nuScenes.")
    rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    backbone_rate: float = Field(
        1.0, gt=0, le=1, description="Factor on the backbone's rate; below 1 spares random weights."
    )
    weight_decay: float = Field(0.01, ge=0, description="On all weights, as in the original.")
    warmup: int = Field(500, ge=0, description="Steps of linear warm-up from a third of the rate; a cosine follows.")
    clip_norm: float = Field(35.0, gt=0, description="Largest norm of the gradient.")

    # What is measured on the way; the weights are the same.
    evaluate_every: int = runtime(500, "Steps between evaluations on held-out samples.", ge=1)
    held_out: int = runtime(64, "At most so many samples of val (of train where val is empty).", ge=1)
    probe_samples: int = runtime(
        64, "Training samples to fit the linear probe on at each evaluation; 0: no probe.", ge=0
    )

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        stride = self.backbone.strides[-1]
        if self.mask_cell % stride:
            raise ValueError(f"mask_cell is {self.mask_cell}: it must be a multiple of the backbone's stride, {stride}")
        for side, pixels in zip(("height", "width"), self.image.size):
            for divisor, name in ((stride, "the backbone's stride"), (self.mask_cell, "mask_cell")):
                if pixels % divisor:
                    raise ValueError(f"the image's {side} of {pixels} is not a multiple of {name}, {divisor}")
        low, high, step = self.depth_bins
        if not 0 < low < high or step <= 0 or round((high - low) / step) < 2:
            raise ValueError(f"depth_bins {self.depth_bins} must be nearest < farthest and a step: two bins at least")
        check_memory(camera_sizes(self.image.size, self.depth_bins, self.backbone.strides[2]))
        if self.reconstruction_weight == self.depth_weight == 0:
            raise ValueError("reconstruction_weight and depth_weight are both 0: there is nothing to learn")
        if self.height[0] >= self.height[1]:
            raise ValueError(f"height {self.height} must ascend")
        if self.public_config and (self.init is None or self.target != "bev"):
            raise ValueError("public_config describes the GeoMIM in pretrain.init: set that too")
        return self

    @property
    def mask_grid(self) -> tuple[int, int]:
        """Cells down and across an image."""
        return self.image.size[0] // self.mask_cell, self.image.size[1] // self.mask_cell


def check_grid(config: PretrainConfig, bev_shape: tuple[int, int]) -> None:
    """Raise ValueError where the teacher's BEV of `bev_shape` (x, y) cells has no whole number of target patches."""
    for axis, cells in zip("xy", bev_shape):
        if cells % config.patch:
            shape = "x".join(map(str, bev_shape))
            raise ValueError(
                f"pretrain.patch is {config.patch}, which does not divide the teacher's BEV of {shape} cells along "
                f"{axis}: choose a divisor of {cells}, or another lidar.range or lidar.voxel_size"
            )
