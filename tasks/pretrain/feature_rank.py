"""How many directions the backbone's features fill: what tells a collapsed backbone from one that learns slowly."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from batches.image_config import ImageConfig
from batches.images import draws_of, load_images, normalise
from storage.index import Index
from tasks.pretrain.frozen import frozen


def feature_rank(backbone: nn.Module, config: ImageConfig, index: Index, dataroot: Path, samples: np.ndarray) -> float:
    """Effective rank of stage 3's map (stride 16) over all tokens of the samples' whole images.

    backbone: see `models.backbones.backbone.Backbone`; it is left as it was.
    """
    device = next(backbone.parameters()).device
    sums = torch.zeros((), dtype=torch.float64, device=device)
    for sample in samples:
        draws = draws_of(index, int(sample), config)
        images = torch.from_numpy(load_images(index, dataroot, int(sample), draws, config.size)).to(device)
        with frozen(backbone):
            features = backbone(normalise(images))[2].permute(0, 2, 3, 1).flatten(0, 2).double()
        ones = torch.cat([features, features.new_ones(len(features), 1)], 1)
        sums = sums + ones.T @ ones
    return effective_rank(sums.cpu())


def effective_rank(sums: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of C features' correlations: 1 if all follow one, C if none.

    sums: (C + 1, C + 1), the sum over tokens of the products of their features and a last feature that is 1.
    Features that never change count for nothing; where all are such, the rank is 0.
    """
    count, mean = sums[-1, -1], sums[:-1, -1] / sums[-1, -1]
    covariance = sums[:-1, :-1] / count - mean.outer(mean)
    variance = covariance.diagonal()
    kept = variance > 1e-12 * (1 + mean.square())
    covariance, deviation = covariance[kept][:, kept], variance[kept].sqrt()
    correlation = covariance / deviation.outer(deviation)
    return float(kept.sum() ** 2 / correlation.square().sum()) if kept.any() else 0.0
