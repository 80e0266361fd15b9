"""A linear probe: how much of where things stand can be read off the frozen BEV, cell by cell, without training it.

No part of the images is hidden. Logistic regression on its channels says
whether a cell is inside an annotated box (any detection class, at least one LiDAR point). It is fitted on training
samples and scored on held-out ones:

probe_ap               average precision over all cells
probe_iou              intersection over union at the threshold that was best on the training samples
prior_ap, prior_iou    of a probe that sees no images: how often a cell was occupied in the training samples
"""

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batches.lidar import sample_boxes
from models.boxes import Boxes
from storage.index import Index
from tasks.pretrain.samples import spread

PRIOR_SAMPLES = 512  # at most, that say how often a cell is occupied
FEWEST_EMPTY = 64  # cells drawn from a sample with hardly a box
RIDGE = 1e-4  # of the logistic regression, on standardised features


Model = TypeVar("Model", bound=nn.Module)


class LinearProbe(NamedTuple):
    """score = (features - mean) / deviation . weight + bias."""

    mean: Tensor  # (C,)
    deviation: Tensor  # (C,)
    weight: Tensor  # (C,)
    bias: Tensor  # ()

    def __call__(self, features: Tensor) -> Tensor:
        """(n, C) -> (n,) logits."""
        return ((features - self.mean) / self.deviation) @ self.weight + self.bias


class ProbedGrid(NamedTuple):
    """Where the cells of a map lie, in the LiDAR's frame."""

    low: tuple[float, float]  # x, y of its corner, m
    cell: float  # m
    shape: tuple[int, int]  # X, Y


class Probe(Generic[Model]):
    """Fits and scores a fresh probe of a model on the same samples each time, on at most `most` of `train`.

    features: (model, sample) -> its frozen map (C, X, Y).
    """

    def __init__(
        self,
        features: Callable[[Model, int], Tensor],
        index: Index,
        grid: ProbedGrid,
        most: int,
        train: np.ndarray,
        held_out: np.ndarray,
    ):
        self.index, self.grid, self.features = index, grid, features
        self.train, self.held_out = spread(train, most), held_out
        self.labels = [self._occupied(sample) for sample in self.train]
        self.truth = torch.cat([self._occupied(sample) for sample in held_out])
        self.useful = bool(torch.cat(self.labels).any() and self.truth.any())
        self.prior = self._prior_metrics(spread(train, PRIOR_SAMPLES)) if self.useful else {}

    def evaluate(self, model: Model) -> dict[str, float]:
        """The metrics above; none if the training or the held-out samples have no boxes."""
        if not self.useful:
            return {}
        features, labels, weights = [], [], []
        for sample, occupied in zip(self.train, self.labels):
            rows, weight = balanced_rows(occupied, np.random.default_rng(int(sample)))
            features.append(self._cells(model, sample)[rows])
            labels.append(occupied[rows])
            weights.append(weight)
        probe = fit_logistic(torch.cat(features), torch.cat(labels), torch.cat(weights))
        threshold = best_threshold(probe(torch.cat(features)), torch.cat(labels), torch.cat(weights))
        scores = torch.cat([probe(self._cells(model, sample)) for sample in self.held_out])
        return {
            "probe_ap": average_precision(scores, self.truth),
            "probe_iou": overlap(scores >= threshold, self.truth),
        } | self.prior

    def _prior_metrics(self, samples: np.ndarray) -> dict[str, float]:
        prior = torch.stack([self._occupied(sample) for sample in samples]).sum(0) / len(samples)
        once = torch.tensor([True, False]).repeat_interleave(len(prior))  # each cell: occupied so often, empty so often
        threshold = best_threshold(prior.repeat(2), once, torch.cat([prior, 1 - prior]))
        scores = prior.repeat(len(self.held_out))
        return {
            "prior_ap": average_precision(scores, self.truth),
            "prior_iou": overlap(scores >= threshold, self.truth),
        }

    def _occupied(self, sample: int) -> Tensor:
        boxes = sample_boxes(self.index, int(sample), min_lidar_points=1)
        return torch.from_numpy(occupied_cells(boxes, *self.grid)).flatten()

    def _cells(self, model: Model, sample: int) -> Tensor:
        """(X * Y, C) float64."""
        return self.features(model, int(sample)).flatten(1).T.double().cpu()


def occupied_cells(boxes: Boxes, low: tuple[float, float], cell: float, shape_XY: tuple[int, int]) -> np.ndarray:
    """(X, Y) bool: cells whose centre is inside a box seen from above, and those that a box's centre is in.

    low: the grid's corner (m), in the boxes' frame. cell: side of a cell (m).
    """
    occupied = np.zeros(shape_XY, bool)
    if len(boxes) == 0:
        return occupied
    xy, half = boxes.centers[:, :2], boxes.sizes[:, :2] / 2
    reach = math.ceil(np.linalg.norm(half, axis=1).max() / cell)
    steps = np.arange(-reach, reach + 1)
    around = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    cells = np.floor((xy - low) / cell).astype(int)[:, None] + around  # (N, K, 2)
    offset = low + (cells + 0.5) * cell - xy[:, None]
    cos, sin = np.cos(boxes.yaws)[:, None], np.sin(boxes.yaws)[:, None]
    along = np.abs(offset[..., 0] * cos + offset[..., 1] * sin)
    across = np.abs(offset[..., 1] * cos - offset[..., 0] * sin)
    inside = (along <= half[:, :1]) & (across <= half[:, 1:]) | (around == 0).all(1)
    inside &= ((cells >= 0) & (cells < shape_XY)).all(-1)
    occupied[tuple(cells[inside].T)] = True
    return occupied


def balanced_rows(occupied: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(rows, weights) of all occupied cells and as many random empty ones, weighted to stand for all empty ones."""
    full, empty = occupied.nonzero()[:, 0], (~occupied).nonzero()[:, 0]
    count = min(len(empty), max(len(full), FEWEST_EMPTY))
    drawn = empty[torch.from_numpy(random.choice(len(empty), count, replace=False))]
    weights = torch.cat([torch.ones(len(full)), torch.full((count,), len(empty) / max(1, count))])
    return torch.cat([full, drawn]), weights


def fit_logistic(features: Tensor, labels: Tensor, weights: Tensor, iterations: int = 100) -> LinearProbe:
    """Logistic regression by L-BFGS, both classes counting the same in all.

    features: (n, C) float64; labels: (n,) bool, both among them; weights: (n,), how many cells a row stands for.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    x, y, w = (features - mean) / deviation, labels.double(), weights.double()
    w = torch.where(labels, 0.5 * w / w[labels].sum(), 0.5 * w / w[~labels].sum())
    weight, bias = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (x.shape[1], ()))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = (w * F.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="none")).sum()
        value = fit + RIDGE * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return LinearProbe(mean, deviation, weight.detach(), bias.detach())


def best_threshold(scores: Tensor, labels: Tensor, weights: Tensor) -> float:
    """The score from which on calling a cell occupied has the best intersection over union."""
    thresholds, hits, alarms = counts_from_above(scores, labels, weights)
    return float(thresholds[(hits / (hits[-1] + alarms)).argmax()])


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Area under the precision-recall steps, equal scores taken together. labels: bool, one of them true."""
    _, hits, alarms = counts_from_above(scores, labels, torch.ones(len(scores)))
    gained = hits.diff(prepend=hits.new_zeros(1))
    return float((gained * hits / (hits + alarms)).sum() / hits[-1])


def counts_from_above(scores: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct scores, descending, and the weights of true and of false labels at or above each."""
    scores, order = scores.sort(descending=True)
    weighted = weights[order].double()
    hits, alarms = (torch.where(chosen, weighted, 0).cumsum(0) for chosen in (labels[order], ~labels[order]))
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])
    return scores[last], hits[last], alarms[last]


def overlap(guess: Tensor, truth: Tensor) -> float:
    """Intersection over union of two masks; truth has a cell."""
    return float((guess & truth).sum() / (guess | truth).sum())
