"""What `geomim experiment gain` compares: ways to pretrain, seeds and shares of the labels."""

from typing import Any, Literal

from pydantic import Field, model_validator

from common.settings import Settings
from tasks.pretrain.methods.mim4d import Config as MIM4DConfig

VERSION = 1

Arm = Literal["scratch", "pixels", "geomim", "no-cross-view", "no-geometry-branch", "mim4d", "unipad", "geomim+mim4d"]
SCRATCH: Arm = "scratch"

# What each pretraining changes in the config's own, which is GeoMIM's.
PRETRAINING: dict[Arm, dict[str, Any]] = {
    "scratch": {},  # is not pretrained: begins where the others' pretraining does
    "pixels": {},  # with the images, masks and decoder of the others, see flows/experiment/plan.py
    "geomim": {},
    "no-cross-view": {"method": {"decoder": {"cross_view": False}}},
    "no-geometry-branch": {"method": {"decoder": {"geometry_branch": False}}},
    "mim4d": {},  # `experiment.mim4d`
    "unipad": {},  # the same of one frame
    "geomim+mim4d": {},  # both at once
}
TITLES: dict[Arm, str] = {
    "scratch": "(a) without pretraining",
    "pixels": "(b) pixel MIM",
    "geomim": "(c) GeoMIM",
    "no-cross-view": "(d) GeoMIM without cross-view attention",
    "no-geometry-branch": "(e) GeoMIM without the geometry branch",
    "mim4d": "(f) MIM4D",
    "unipad": "(g) UniPAD",
    "geomim+mim4d": "(h) GeoMIM + MIM4D",
}


class ExperimentConfig(Settings):
    """Every arm with every seed at every fraction; all else is the pipeline's config."""

    arms: tuple[Arm, ...] = Field(("scratch", "geomim"), description="The first is what the others are held against.")
    seeds: int = Field(3, ge=2, le=100, description="Runs of each, seeds 0 and up: of finetuning and of pretraining.")
    pretrain_seeds: bool = Field(
        True, description="Pretrain anew for every seed; false: once, and seeds vary finetuning alone."
    )
    fractions: tuple[float, ...] = Field((0.1,), description="Shares of the train split's scenes with labels.")
    mim4d: MIM4DConfig = Field(
        default_factory=MIM4DConfig, description="The method of arm mim4d; unipad is the same of one frame."
    )

    @model_validator(mode="after")
    def _compares(self) -> "ExperimentConfig":
        for name, values in (("arms", self.arms), ("fractions", self.fractions)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {', '.join(map(str, values))} names one twice")
        if len(self.arms) < 2:
            raise ValueError("arms must be two at least: there is nothing to compare")
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"fractions {self.fractions} must be shares above 0, up to 1")
        return self
