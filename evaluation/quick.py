"""The official metrics of some samples without the devkit: a check before hours of work, or many in one experiment."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation import metrics
from evaluation.flat import counted
from evaluation.ground_truth import ego, flat_truth, ground_truth, racks
from evaluation.submission import flat_predictions
from models.boxes import Boxes
from storage.index import Index


def annotated_samples(index: Index, most: int) -> np.ndarray:
    """At most `most` samples that have boxes to find, spread over val, or over train where val has none."""
    for split in ("val", "train"):
        samples = np.array([s for s in index.samples(split) if len(ground_truth(index, int(s)))], int)
        if len(samples):
            return samples[np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))]
    return np.zeros(0, int)


def scores(
    index: Index, predictions: Mapping[int, Boxes], attributes: Mapping[int, Sequence[str]] | None = None
) -> dict:
    """`evaluation.metrics.evaluate` of predictions, on the samples that they name.

    Boxes as for `evaluation.official.evaluate`, which gives the same numbers for the samples of a split; but the
    index holds true boxes in the LiDAR's frame, so that one at its range to the last bit may count here and not there.
    """
    predicted = flat_predictions(index, predictions, attributes)
    predicted = predicted[counted(predicted, ego(index), racks(index, predictions))]
    return metrics.evaluate(flat_truth(index, predictions), predicted, ego(index))


def average_precisions(index: Index, predictions: Mapping[int, Boxes]) -> dict[str, float]:
    """AP (mean over the four official distances) of each class that has boxes in the samples of `predictions`."""
    classes = scores(index, predictions)["classes"]
    return {name: c["AP"] for name, c in classes.items() if c["ground_truth"]}
