"""What `geomim experiment gain` compares: ways to pretrain, seeds and shares of the labels."""

from typing import Any, Literal

from pydantic import Field, model_validator

from common.settings import Settings

VERSION = 1

Arm = Literal["scratch", "pixels", "geomim", "no-cross-view", "no-geometry-branch"]
SCRATCH: Arm = "scratch"

# What each pretraining changes in the config's own, which is GeoMIM's.
PRETRAINING: dict[Arm, dict[str, Any]] = {
    "scratch": {},  # is not pretrained
    "pixels": {},  # with the images, masks and decoder of the others, see flows/experiment/plan.py
    "geomim": {},
    "no-cross-view": {"method": {"decoder": {"cross_view": False}}},
    "no-geometry-branch": {"method": {"decoder": {"geometry_branch": False}}},
}
TITLES: dict[Arm, str] = {
    "scratch": "(a) from scratch",
    "pixels": "(b) pixel MIM",
    "geomim": "(c) GeoMIM",
    "no-cross-view": "(d) GeoMIM without cross-view attention",
    "no-geometry-branch": "(e) GeoMIM without the geometry branch",
}


class ExperimentConfig(Settings):
    """Every arm with every seed at every fraction; all else is the pipeline's config."""

    arms: tuple[Arm, ...] = Field(("scratch", "geomim"), description="The first is what the others are held against.")
    seeds: int = Field(3, ge=2, le=100, description="Runs of each, seeds 0 and up: of finetuning and of pretraining.")
    pretrain_seeds: bool = Field(
        True, description="Pretrain anew for every seed; false: once, and seeds vary finetuning alone."
    )
    fractions: tuple[float, ...] = Field((0.1,), description="Shares of the train split's scenes with labels.")

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
