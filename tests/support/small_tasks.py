"""Tasks for the training loop that are two functions, and schedules that are one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.task import Term


class Part(NamedTuple):
    """A micro-batch of anything."""

    value: Any
    tokens: Sequence[str] = ()

    def to(self, device: torch.device) -> "Part":
        return self

    def pinned(self) -> "Part":
        return self


class SmallTask:
    """parts: step -> micro-batches; losses: value of a micro-batch -> term by name."""

    def __init__(
        self,
        parts: Callable[[int], Sequence[Part]],
        losses: Callable[[Any], dict[str, Tensor]],
        evaluate: Callable[[int], dict[str, float]] = lambda steps: {},
        network: nn.Module | None = None,
    ):
        self.load, self._losses, self.evaluate, self.network = parts, losses, evaluate, network

    def counts(self, part: Part) -> dict[str, Tensor]:
        return {}

    def terms(self, part: Part) -> list[Term]:
        return [Term(name, 1.0, loss) for name, loss in self._losses(part.value).items()]


@dataclass(frozen=True)
class Rates:
    """A schedule that is a function."""

    steps: int
    factor: Callable[[int], float] = lambda step: 1.0
