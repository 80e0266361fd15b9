"""A method, as the training loop wants it, and what is measured of it on the way."""

from pathlib import Path
from typing import Generic

import numpy as np
from torch import Tensor, nn

from common.progress import say
from storage.index import Index
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.feature_rank import feature_rank
from tasks.pretrain.method import AnyBatch, Evaluator, Method
from training.order import parts_at
from training.speed import trained
from training.task import Term

MARKS = (
    "mean_map",
    "zero",
    "blind",
)  # errors of answers that see nothing: what the first figure stands beside, where given


class HeldOutFigures:
    """The method's figures of held-out samples, and the rank of the backbone's features.

    result: what is measured, the model or its running average.
    """

    def __init__(
        self,
        config: PretrainConfig,
        evaluator: Evaluator,
        result: nn.Module,
        index: Index,
        dataroot: Path,
        samples: np.ndarray,
    ):
        self._config, self._evaluator, self._result = config, evaluator, result
        self._index, self._dataroot, self._samples = index, dataroot, samples

    def __call__(self, steps: int) -> dict[str, float]:
        """By name, `held_out_` before each; the first in a line."""
        figures = self._evaluator.evaluate(self._result)
        (name, first), *_ = figures.items()
        marks = ", ".join(f"{mark.replace('_', ' ')} {figures[mark]:.4f}" for mark in MARKS if mark in figures)
        backbone = self._result.get_submodule("backbone")
        rank = feature_rank(backbone, self._config.image, self._index, self._dataroot, self._samples)
        beside = f" ({marks})" if marks else ""
        say(f"pretrain: {steps} steps, held-out {name} {first:.4f}{beside}, features of rank {rank:.1f}")
        return {f"held_out_{name}": value for name, value in (figures | {"rank": rank}).items()}


class PretrainTask(Generic[AnyBatch]):
    """A `training.task.Task`. samples: rows of the index to draw from. figures: on rank 0, which alone evaluates."""

    def __init__(
        self,
        config: PretrainConfig,
        method: Method[AnyBatch],
        model: nn.Module,
        samples: np.ndarray,
        figures: HeldOutFigures | None,
    ):
        self.config, self.method, self.model, self.samples = config, method, model, samples
        self.network, self.figures = trained(model, config), figures

    def load(self, step: int) -> list[AnyBatch]:
        parts = parts_at(step, self.config.batch_size, self.config.accumulate)
        return [self.method.batch(positions, self.samples) for positions in parts]

    def counts(self, batch: AnyBatch) -> dict[str, Tensor]:
        return self.method.counts(self.model, batch)

    def terms(self, batch: AnyBatch) -> list[Term]:
        return self.method.terms(self.model, self.network, batch)

    def evaluate(self, steps: int) -> dict[str, float]:
        return self.figures(steps) if self.figures else {}
