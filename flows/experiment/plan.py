"""The runs of an experiment: configs of the ordinary pipeline, so that each finds what others have cached."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from tasks.engine.config import PipelineConfig, merged
from tasks.engine.experiment import PRETRAINING, SCRATCH, Arm
from tasks.engine.plan import Planned, make_plan
from tasks.engine.stage import Step
from tasks.pretrain.methods import CONFIGS
from tasks.pretrain.methods.joint import LIFT


@dataclass(frozen=True)
class Run:
    """One detector of the experiment, and the pipeline that makes it."""

    arm: Arm
    fraction: float
    seed: int
    config: PipelineConfig

    def plan(self, root: Path, command: str = "") -> list[Planned]:
        """Its stages, in order. command: what was typed. Raises UserError where there is no dataroot."""
        plan = make_plan(self.config, root, command=command)
        plan[0].ready()
        return plan

    def steps(self, root: Path) -> dict[str, Step]:
        """Its steps by name. Raises UserError where there is no dataroot."""
        return {planned.name: planned.ready() for planned in self.plan(root)}


def runs(config: PipelineConfig) -> Iterator[Run]:
    """Every run, those that belong together in a row: a killed experiment leaves full comparisons behind.

    Raises UserError where the config trains no detector.
    """
    experiment, finetune = config.experiment, config.finetune
    if finetune.task != "detection" or config.evaluate.checkpoint is not None:
        raise UserError("experiment: compares detectors that it trains; set finetune.task to detection, no checkpoint")
    for fraction in experiment.fractions:
        for seed in range(experiment.seeds):
            for arm in experiment.arms:
                yield Run(arm, fraction, seed, _config(config, arm, fraction, seed))


def _config(config: PipelineConfig, arm: Arm, fraction: float, seed: int) -> PipelineConfig:
    """Without pretraining, the config has no stage of it: such a run outlives all changes there."""
    base: dict[str, Any] = config.model_dump(mode="json") | {"preset": None}
    init = config.pretrain.init or "random" if arm == SCRATCH else "pretrain"
    base["pretrain"]["method"] = _method(base["pretrain"]["method"], arm, base["experiment"]["mim4d"])
    of_run = {
        "pretrain": PRETRAINING[arm] | {"seed": seed if config.experiment.pretrain_seeds else config.pretrain.seed},
        "finetune": {"seed": seed, "label_fraction": fraction, "init": init, "baseline": False},
    }
    return PipelineConfig.model_validate(merged(base, of_run))


def _method(method: dict[str, Any], arm: Arm, mim4d: dict[str, Any]) -> dict[str, Any]:
    """An arm's, from a GeoMIM and a MIM4D."""
    if arm == "pixels":
        return _pixels(method)
    if arm in ("mim4d", "unipad"):
        return mim4d if arm == "mim4d" else mim4d | {"frames": 1}
    if arm == "geomim+mim4d":
        beside = {name: value for name, value in mim4d.items() if name not in LIFT}
        return {"name": "joint", "geomim": method, "mim4d": beside}
    return method


def _pixels(method: dict[str, Any]) -> dict[str, Any]:
    """Pixel MIM with the masks and the decoder's size of a GeoMIM."""
    pixels = CONFIGS["pixels"]()
    shared = {name: method[name] for name in type(pixels).model_fields if name not in ("name", "decoder")}
    size = {name: method["decoder"][name] for name in type(pixels.decoder).model_fields}
    return {"name": pixels.name, "decoder": size} | shared
