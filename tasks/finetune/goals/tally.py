"""Scores that are counts over all samples, and the worst samples, with no others in memory."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from tasks.finetune.goals.goal import SampleResult
from training.ranks import gathered


class Score(Protocol):
    """Counts that add up."""

    samples: int
    counts: np.ndarray

    @property
    def add(self) -> Callable[..., None]:
        """Called with what is predicted of a sample and the arrays of its truth, count it."""
        ...

    def result(self) -> dict:
        """The figures, `mIoU` among them: None where nothing was there and nothing predicted."""
        ...


class Looked(NamedTuple):
    """A sample, how well it went, and what was predicted."""

    mean_iou: float
    sample: int
    predicted: np.ndarray


class Tally(NamedTuple):
    """Of the samples of all ranks."""

    score: Score
    worst: list[Looked]  # worst first


def tallied(results: Iterator[SampleResult], new_score: Callable[[], Score], most: int) -> Tally:
    """Score a rank's samples and add up all ranks' counts; keep at most so many of the worst. Called on all ranks."""
    own, kept = new_score(), []
    for sample, predicted, truth in results:
        one = new_score()
        one.add(predicted, *truth)
        _join(own, one.samples, one.counts)
        mean = one.result()["mIoU"]
        kept.append(Looked(1.0 if mean is None else mean, sample, predicted))
        kept = _worst(kept, most)
    total = new_score()
    for share in gathered((own.samples, own.counts)):
        _join(total, *share)
    return Tally(total, _worst([looked for share in gathered(kept) for looked in share], most))


def _join(score: Score, samples: int, counts: np.ndarray) -> None:
    score.samples += samples
    score.counts += counts


def _worst(looked: list[Looked], most: int) -> list[Looked]:
    return sorted(looked, key=lambda one: one[:2])[:most]
