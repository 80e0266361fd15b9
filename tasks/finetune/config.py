"""What the stages `finetune` and `evaluate` can be told.

Defaults are those of GeoMIM's BEVDet at 256x704 (single frame).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from batches.image_config import ImageConfig
from batches.view_config import ViewConfig
from common.settings import Settings, external_file, runtime
from models.backbones.build import BackboneConfig
from models.backbones.config import SwinConfig
from models.occupancy import RANGE
from tasks.memory import camera_sizes, check_memory
from training.settings import CameraTrainingSettings

FINETUNE_VERSION = 6
EVALUATE_VERSION = 2
BEV_STRIDE = 8  # of the BEV encoder's last map: the grid's cells must divide by it


class DetectorConfig(Settings):
    """What a detector is, and what it sees: all that gives its weights their meaning."""

    task: Literal["detection", "segmentation", "occupancy"] = Field(
        "detection",
        description="What is learnt: boxes; where one can drive and vehicles stand; or what each voxel holds (Occ3D).",
    )
    backbone: BackboneConfig = Field(default_factory=SwinConfig)
    image: ImageConfig = Field(default_factory=ImageConfig)
    view: ViewConfig = Field(default_factory=ViewConfig)
    bev_range: float = Field(51.2, gt=0, description="The grid covers x and y in +- this (m) around the ego.")
    bev_cell: float = Field(0.8, gt=0, description="Side of a BEV cell (m).")
    height: tuple[float, float] = Field((-5.0, 3.0), description="Heights (m, ego frame) that are lifted.")
    depth_bins: tuple[float, float, float] = Field((1.0, 60.0, 1.0), description="Nearest, farthest and step (m).")
    image_width: int = Field(256, ge=1, description="Channels of the image neck.")
    context: int = Field(80, ge=1, description="Channels lifted into the BEV.")
    bev_widths: tuple[int, int, int] = Field((160, 320, 640), description="Channels of the BEV encoder's stages.")
    bev_width: int = Field(256, ge=1, description="Channels of the BEV neck, the head's input.")
    class_groups: Literal["one", "six"] = Field("one", description="Branches of the head: CenterPoint's six, or one.")
    head_width: int = Field(64, ge=1, description="Channels of the head.")

    @model_validator(mode="after")
    def _is_a_detector(self) -> "DetectorConfig":
        stride = self.backbone.strides[-1]
        if any(side % stride for side in self.image.size):
            raise ValueError(f"image.size {self.image.size} must be multiples of {stride}, the backbone's stride")
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
        bev = {f"bev_range by bev_cell, a map of {cells:,.0f} x {cells:,.0f} cells,": 4 * self.context * cells**2}
        check_memory(camera_sizes(self.image.size, self.depth_bins, self.backbone.strides[2]) | bev)
        if self.task != "detection" and self.view.key_ego != "lidar":
            raise ValueError(f"task {self.task} needs view.key_ego = lidar: its truth stands in that frame")
        if self.task == "occupancy" and self.bev_range != RANGE:
            raise ValueError(f"task occupancy needs bev_range = {RANGE:g}, Occ3D's, not {self.bev_range:g}")
        return self


class FinetuneConfig(DetectorConfig, CameraTrainingSettings):
    """A BEVDet on a pretrained backbone, and the same on what pretraining began with."""

    init: str = external_file(
        "pretrain",
        "The backbone's weights: of stage `pretrain`, of a checkpoint in any layout, or `random`.",
        words=("pretrain", "random"),
    )
    baseline: bool = runtime(
        True,
        "Train the same detector without pretraining too, from `pretrain.init` or random weights, to show the gain.",
    )
    label_fraction: float = Field(1.0, gt=0, le=1, description="Share of the train scenes that are learnt from.")

    # What is learnt
    velocity_weight: float = Field(1.0, ge=0, description="Of the velocity's loss beside a box's other parts'.")
    velocity_loss: Literal["l1", "squared"] = Field(
        "l1",
        description="squared: for short trainings, in which L1 learns no more than that most boxes stand still; errors "
        "over 10 m/s count linearly.",
    )
    gaussian_radius: int = Field(2, ge=0, description="Least radius of a centre in the heatmap target (cells).")
    min_lidar_points: int = Field(1, ge=0, description="Boxes with fewer LiDAR points are not learnt from.")
    depth_weight: float = Field(0.0, ge=0, description="Of depth supervision by LiDAR (BEVDepth: 3); 0 for none.")

    # Augmentation of the scene
    bev_rotation: float = Field(22.5, ge=0, le=180, description="The scene turns about z by up to this (degrees).")
    bev_scale: float = Field(0.05, ge=0, lt=1, description="Largest change of the scene's scale (0.05: 0.95 to 1.05).")
    bev_flip: bool = Field(True, description="Mirror half of the scenes along x, and half along y.")

    # Optimisation
    steps: int = Field(35_000, ge=1, description="Optimiser steps; 35,000 of 16 samples pass 20 times over nuScenes.")
    rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    final_rate: float = Field(1.0, ge=0, le=1, description="Where a cosine takes the rate, as a factor; 1: constant.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor on the rate from each block of the backbone to the one before it."
    )
    backbone_rate: float = Field(1.0, ge=0, description="Factor on the rate of the whole backbone; 0: it is frozen.")
    warmup: int = Field(200, ge=0, description="Steps in which the rate rises linearly from a thousandth.")
    weight_decay: float = Field(0.05, ge=0, description="Not on biases and norms.")
    drop_path: float = Field(0.2, ge=0, lt=1, description="Of the backbone's residual branches.")
    norm_momentum: float = Field(0.1, gt=0, le=1, description="Of batch normalisation's running statistics.")
    clip_norm: float = Field(5.0, gt=0, description="Largest norm of the gradient.")

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, given: Any) -> Any:
        """Say where the fields of evaluation are now."""
        for name in ("checkpoint", "public_config", "nms", "score_threshold", "pictures"):
            if isinstance(given, dict) and name in given:
                raise ValueError(f"{name} is evaluate.{name} now: a section of its own, which no weights depend on")
        if isinstance(given, dict) and "from_scratch" in given:
            raise ValueError("from_scratch is baseline now: that arm begins from pretrain.init where that is set")
        return given

    @model_validator(mode="after")
    def _can_be_learnt(self) -> "FinetuneConfig":
        if self.task == "occupancy" and (self.bev_rotation or self.bev_scale):
            raise ValueError("task occupancy needs bev_rotation = bev_scale = 0: voxels can be mirrored, and no more")
        return self

    @property
    def needs_depth(self) -> bool:
        """Whether LiDAR depth is learnt from."""
        return self.depth_weight > 0


class EvaluateConfig(Settings):
    """What of a detector's predictions counts, and how they are shown."""

    checkpoint: str | None = external_file(
        None, "A trained detector to evaluate as it is: nothing is trained. BEVDet's layout, or a detector of ours."
    )
    public_config: str | None = external_file(
        None,
        "The public config of `checkpoint`, where shapes do not tell all of its network: BEVDet's Python file, or the "
        "resolved one as JSON or YAML. It must agree with ours.",
    )
    score_threshold: float = Field(0.1, ge=0, lt=1, description="Boxes that score lower are not predicted.")
    nms: Literal["circle", "rotated"] = Field(
        "rotated",
        description="What boxes suppress others: of the same class within its radius (CenterPoint), or those that "
        "overlap when grown by a factor for each class (BEVDet's scale-NMS).",
    )
    nms_radius: float = Field(
        0.0,
        ge=0,
        description="circle: the least radius (m). CenterPoint's are 0.42 to 3.46; those below a BEV cell would keep a "
        "peak's neighbours.",
    )
    pictures: int = Field(4, ge=0, description="Pictures of the samples with most missed and false boxes.")

    @model_validator(mode="after")
    def _describes_something(self) -> "EvaluateConfig":
        if self.public_config and self.checkpoint is None:
            raise ValueError("public_config describes the detector in evaluate.checkpoint: set that too")
        return self


EVALUATE = EvaluateConfig()  # the default


class Evaluation(Settings):
    """The config of a step of stage `evaluate`: the section's, and that of the detector that it is about."""

    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    detector: FinetuneConfig = Field(default_factory=FinetuneConfig)

    @model_validator(mode="after")
    def _describes_a_detector(self) -> "Evaluation":
        if self.evaluate.public_config and self.detector.task != "detection":
            raise ValueError("evaluate.public_config describes a detector of boxes, and finetune.task is another")
        return self

    def key_fields(self) -> dict[str, Any]:
        """Of the detector what evaluation alone depends on; the rest where no finetune artifact stands for it."""
        out = self.evaluate.key_fields() | {"resize_test": self.detector.image.resize_test}
        if self.evaluate.checkpoint is not None:
            fields = self.detector.key_fields()
            out["detector"] = {name: fields[name] for name in (*DetectorConfig.model_fields, "precision")}
        return out

    def external_files(self) -> dict[str, Path]:
        return self.evaluate.external_files()

    @property
    def device(self) -> str:
        return self.detector.device

    @property
    def threads(self) -> int:
        return self.detector.threads

    @property
    def ranks(self) -> int:
        return self.detector.ranks
