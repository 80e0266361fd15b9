"""What can be said of a sample without its images: the marks that pretraining has to pass.

The cameras are fixed to the car, so a model that sees no images is told the same for every sample and has one answer
for all of them. The best such answer needs no training: under squared error the mean of the targets, cell by cell, and
under absolute error the median depth, pixel by pixel.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from batches.geomim import GeoMIMBatches
from models.depth_bins import NO_LABEL, DepthBins
from models.geomim.target import normalise_patches
from tasks.pretrain.methods.geomim import Config
from tasks.pretrain.samples import DEPTH_SAMPLES, spread

BEV_SAMPLES = 512  # a mean of n maps has an error of its own, 1/n of theirs at best


class Blind(NamedTuple):
    """The answers of a model that sees no images."""

    bev: Tensor  # (1, C, X, Y) mean of the normalised targets
    depth: Tensor  # (N, h, w) m, median of the nearest LiDAR depth in every stride x stride block


def blind_answers(batches: GeoMIMBatches, config: Config, train: np.ndarray) -> Blind:
    """From samples spread over `train`, without augmentation."""
    bins = DepthBins(*config.depth_bins)
    mean, chosen = torch.zeros(1, *batches.bev.shape), spread(train, BEV_SAMPLES)
    for sample in chosen.tolist():
        bev = torch.from_numpy(np.ascontiguousarray(batches.bev[sample]))[None].float()
        mean += normalise_patches(bev, config.patch) / len(chosen)
    held_out = (batches.held_out(np.array([sample])) for sample in spread(train, DEPTH_SAMPLES))
    return Blind(mean, median_depth(torch.stack([labelled_depth(batch.depth_map[0], bins) for batch in held_out])))


def labelled_depth(depth_map: Tensor, bins: DepthBins) -> Tensor:
    """The nearest LiDAR depths (..., h, w), m, that the depth loss looks at, 0 elsewhere."""
    return torch.where(bins.labels(depth_map) != NO_LABEL, depth_map, 0.0)


def median_depth(depths: Tensor) -> Tensor:
    """Median of labelled (positive) depths over the first dimension; where no sample has one, the median of them all.

    (S, N, h, w) -> (N, h, w); zeros if nothing is labelled at all.
    """
    known = torch.where(depths > 0, depths, torch.nan)
    return known.nanmedian(0).values.nan_to_num(float(known.nanmedian().nan_to_num(0.0)))
