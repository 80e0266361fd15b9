"""What pretraining can be told. Defaults are GeoMIM's: Swin-B at 256x704 (8 GPUs, 2 samples each)."""

from typing import Any

from pydantic import Field, model_validator

from batches.image_config import ImageConfig
from common.settings import external_file, runtime
from models.backbones.build import BackboneConfig
from models.backbones.config import SwinConfig
from tasks.engine.stage import StageName
from tasks.pretrain.methods import CONFIGS, AnyMethod
from training.settings import CameraTrainingSettings

VERSION = 5


class PretrainConfig(CameraTrainingSettings):
    """Masked images in, what the method rebuilds out."""

    backbone: BackboneConfig = Field(default_factory=SwinConfig)
    image: ImageConfig = Field(default_factory=ImageConfig)
    method: AnyMethod = Field(default_factory=CONFIGS["geomim"], description="What is rebuilt, by its name, and how.")
    init: str | None = external_file(
        None, "Checkpoint to begin from: MixMAE's (as in the original), a Swin's or a GeoMIM's; none: random weights."
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

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, given: Any) -> Any:
        """A method may be given by its name alone, or without one; say where the fields of before are now."""
        if not isinstance(given, dict):
            return given
        if "target" in given:
            now = "pixels" if given["target"] == "pixels" else "geomim"
            raise ValueError(f"target is method.name now: write method: {{name: {now}}}")
        for name in CONFIGS["geomim"].model_fields:
            if name in given and name not in cls.model_fields:
                raise ValueError(f"{name} is method.{name} now: write method: {{name: geomim, {name}: ...}}")
        method = given.get("method", {})
        if isinstance(method, str):
            return given | {"method": {"name": method}}
        if isinstance(method, dict) and "name" not in method:
            return given | {"method": {"name": "geomim"} | method}
        return given

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        stride = self.backbone.strides[-1]
        for side, pixels in zip(("height", "width"), self.image.size):
            if pixels % stride:
                raise ValueError(f"the image's {side} of {pixels} is not a multiple of the backbone's stride, {stride}")
        self.method.check(self.image, self.backbone, self.init)
        return self

    @property
    def needs(self) -> tuple[StageName, ...]:
        """The stages whose artifacts are read."""
        return self.method.needs
