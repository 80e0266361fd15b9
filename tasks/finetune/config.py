"""What the finetune stage can be told. Defaults are those of GeoMIM's BEVDet at 256x704 (single frame)."""

from pydantic import Field, model_validator

from tasks.backbone import STRIDE, BackboneConfig
from tasks.batches.images import ImageConfig
from tasks.settings import Settings, runtime

VERSION = 2
BEV_STRIDE = 8  # of the BEV encoder's last map: the grid's cells must divide by it


class FinetuneConfig(Settings):
    """A BEVDet on the pretrained backbone, and the same from scratch beside it."""

    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    seed: int = Field(0, ge=0, description="Of weights, sample order and augmentation; the arms share it.")
    from_scratch: bool = Field(True, description="Train the same detector without pretraining too, to show the gain.")

    image: ImageConfig = Field(default_factory=ImageConfig)

    # The detector
    bev_range: float = Field(51.2, gt=0, description="The grid covers x and y in +- this (m) around the ego.")
    bev_cell: float = Field(0.8, gt=0, description="Side of a BEV cell (m).")
    height: tuple[float, float] = Field((-5.0, 3.0), description="Heights (m, ego frame) that are lifted.")
    depth_bins: tuple[float, float, float] = Field((1.0, 60.0, 1.0), description="Nearest, farthest and step (m).")
    image_width: int = Field(512, ge=1, description="Channels of the image neck.")
    context: int = Field(80, ge=1, description="Channels lifted into the BEV.")
    bev_widths: tuple[int, int, int] = Field((160, 320, 640), description="Channels of the BEV encoder's stages.")
    bev_width: int = Field(256, ge=1, description="Channels of the BEV neck, the head's input.")
    head_width: int = Field(64, ge=1, description="Channels of the head.")
    gaussian_radius: int = Field(2, ge=0, description="Least radius of a centre in the heatmap target (cells).")
    score_threshold: float = Field(0.1, ge=0, lt=1, description="Boxes that score lower are not predicted.")

    # Augmentation of the scene
    bev_rotation: float = Field(22.5, ge=0, le=180, description="The scene turns about z by up to this (degrees).")
    bev_scale: float = Field(0.05, ge=0, lt=1, description="Largest change of the scene's scale (0.05: 0.95 to 1.05).")
    bev_flip: bool = Field(True, description="Mirror half of the scenes along x, and half along y.")

    # Optimisation
    steps: int = Field(70_000, ge=1, description="Optimiser steps; 70,000 of 8 samples pass 20 times over nuScenes.")
    batch_size: int = Field(8, ge=1, description="Samples (of six images) a step.")
    rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    final_rate: float = Field(1.0, ge=0, le=1, description="Where a cosine takes the rate, as a factor; 1: constant.")
    warmup: int = Field(200, ge=0, description="Steps in which the rate rises linearly from a thousandth.")
    weight_decay: float = Field(0.05, ge=0, description="Not on biases and norms.")
    drop_path: float = Field(0.2, ge=0, lt=1, description="Of the backbone's residual branches.")
    norm_momentum: float = Field(0.1, gt=0, le=1, description="Of batch normalisation's running statistics.")
    clip_norm: float = Field(5.0, gt=0, description="Largest norm of the gradient.")
    min_lidar_points: int = Field(1, ge=0, description="Boxes with fewer LiDAR points are not learnt from.")
    depth_weight: float = Field(0.0, ge=0, description="Of depth supervision by LiDAR (BEVDepth: 3); 0 for none.")

    # How, not what
    device: str = runtime("auto", "cpu, cuda, or auto: CUDA where there is one.")
    threads: int = runtime(0, "CPU threads; 0 takes all. Another number may change the last bits of a result.", ge=0)
    loaders: int = runtime(4, "Threads that decode and augment images.", ge=1, le=64)
    seconds_between_saves: float = runtime(60.0, "Between checkpoints.", gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> "FinetuneConfig":
        if any(side % STRIDE for side in self.image.size):
            raise ValueError(f"image.size {self.image.size} must be multiples of {STRIDE}, the backbone's stride")
        cells = 2 * self.bev_range / self.bev_cell
        if abs(cells - round(cells)) > 1e-6 or round(cells) % BEV_STRIDE:
            raise ValueError(
                f"2 * bev_range / bev_cell = {cells:g} must be a multiple of {BEV_STRIDE} (the BEV encoder's stride)"
            )
        low, high, step = self.depth_bins
        if not 0 < low < high or step <= 0 or round((high - low) / step) < 2:
            raise ValueError(f"depth_bins {self.depth_bins} must be nearest < farthest and a step: two bins at least")
        if self.height[0] >= self.height[1]:
            raise ValueError(f"height {self.height} must ascend")
        return self
