"""What some numbers say: of each arm, and of two arms whose numbers come in pairs. Plain Student statistics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Spread(NamedTuple):
    """n values: their mean, sample standard deviation (n - 1), least and greatest."""

    mean: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of two values at least."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)), float(min(values)), float(max(values)))


class Difference(NamedTuple):
    """The mean of paired differences, and the interval that Student's t gives it; n - 1 degrees of freedom.

    apart: every value of the one is above every value of the other.
    """

    mean: float
    low: float
    high: float
    apart: bool

    @classmethod
    def of(cls, values: Sequence[float], base: Sequence[float]) -> "Difference":
        """Of `values` over `base`, one of each a seed, two seeds at least."""
        from scipy.stats import t

        differences = np.subtract(values, base)
        error = np.std(differences, ddof=1) / np.sqrt(len(differences))
        reach = float(t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1) * error)
        mean = float(np.mean(differences))
        return cls(mean, mean - reach, mean + reach, min(values) > max(base))
