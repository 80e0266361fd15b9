"""What a way of pretraining is to those who run it."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.method_config import MethodConfig
from training.task import AnyBatch, Term


class Evaluator(Protocol):
    """Measures a model on samples that it does not learn from."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures by name, the one to look at first; `model` is left as it was. Logged with `held_out_` before it."""
        ...

    def draw(self, model: nn.Module, folder: Path) -> None:
        """Write `pretrain.png`: samples, what is hidden of them and what the model rebuilds."""
        ...


class Method(Protocol[AnyBatch]):
    """A way of pretraining, on its inputs. The loss is that of `training.task.Task`, see there."""

    def __init__(self, config: PretrainConfig, method: MethodConfig, inputs: Inputs, index: Index):
        """Open what is read. method: of this way of pretraining. Raises UserError for artifacts that cannot be trained
        on together."""
        ...

    def build(self) -> nn.Module:
        """The network, with weights drawn from torch's global generator. Its `backbone` is what is pretrained."""
        ...

    def batch(self, positions: range, samples: np.ndarray) -> AnyBatch:
        """What stands at these positions of a training on `samples` (see training/order.py), augmented."""
        ...

    def counts(self, model: nn.Module, batch: AnyBatch) -> dict[str, Tensor]:
        """See `Task.counts`."""
        ...

    def terms(self, model: nn.Module, network: nn.Module, batch: AnyBatch) -> list[Term]:
        """The loss. network: what to call in place of `model`, which is what to ask of anything else."""
        ...

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> Evaluator:
        """Of the samples `held_out`; train: those that are learnt from."""
        ...
