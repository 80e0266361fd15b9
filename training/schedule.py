"""The learning rate over a run."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up and half a cosine, as factors on each parameter group's rate.

    From `start` to 1 over `warmup` steps, then from 1 down to `floor`.
    """

    steps: int
    warmup: int
    start: float = 1 / 3
    floor: float = 1e-3

    def factor(self, step: int) -> float:
        """At a step; the first is 0."""
        if step < self.warmup:
            return self.start + (1 - self.start) * step / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2
