"""The learning rate over a run."""

import math


def cosine_with_warmup(step: int, steps: int, warmup: int, start: float = 1 / 3, floor: float = 1e-3) -> float:
    """The factor on the base rate at step `step` of `steps` (the first is 0).

    Linear from `start` to 1 over `warmup` steps, then half a cosine from 1 down to `floor`.
    """
    if step < warmup:
        return start + (1 - start) * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
