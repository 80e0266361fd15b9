"""How well the network does on samples that it does not learn from, and how well one does that sees nothing."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.depth_bins import NO_LABEL, DepthBins, nearest_in_cells
from models.geomim.model import STRIDE, GeoMIM
from models.geomim.target import normalise_patches
from storage.index import Index
from tasks.batches.pretrain import PretrainBatch, PretrainBatches

SAMPLES_FOR_MEAN = 64


def split_samples(index: Index, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(to train on, to hold out): the train split and at most `most` samples spread over val.

    Without a val split the last tenth of train is held out; of a single sample, that sample.
    """
    train, val = index.samples("train"), index.samples("val")
    if len(val) == 0:
        cut = max(1, len(train) - max(1, len(train) // 10))
        train, val = train[:cut], train[cut:] if len(train) > 1 else train
    return train, val[np.unique(np.linspace(0, len(val) - 1, min(most, len(val))).astype(int))]


class HeldOut:
    """Evaluation on fixed samples with fixed masks, against what can be said without looking.

    Baselines: 0, which is the mean of a normalised target; and the mean target of the training samples, cell by cell.
    """

    def __init__(self, batches: PretrainBatches, samples: np.ndarray, train: np.ndarray, device: torch.device):
        self.batches, self.samples, self.device = batches, samples, device
        chosen = train[np.unique(np.linspace(0, len(train) - 1, min(SAMPLES_FOR_MEAN, len(train))).astype(int))]
        patch = batches.config.patch
        maps = [
            normalise_patches(torch.from_numpy(batches.bev[s]).contiguous()[None].float(), patch)
            for s in chosen.tolist()
        ]
        self.mean_map = sum(maps) / len(maps)

    def evaluate(self, model: GeoMIM) -> dict[str, float]:
        """Mean squared errors of the normalised BEV, and of depth (m, mean absolute) in cells that LiDAR hit."""
        reconstruction, zero, mean_map, depth, cells = [], [], [], 0.0, 0
        for batch, made in self.predictions(model):
            target = normalise_patches(batch.lidar_bev().float(), model.patch)
            reconstruction += [float((bev.float() - target).square().mean()) for bev in made.bev]
            zero.append(float(target.square().mean()))
            mean_map.append(float((target - self.mean_map.to(target)).square().mean()))
            error, count = depth_error(made.depth_prob, batch.depth_map, model.view_transform.bins)
            depth, cells = depth + error, cells + count
        return {
            "held_out_reconstruction": float(np.mean(reconstruction)),
            "held_out_zero": float(np.mean(zero)),
            "held_out_mean_map": float(np.mean(mean_map)),
            "held_out_depth": depth / max(1, cells),
        }

    @torch.no_grad()
    def predictions(self, model: GeoMIM, samples: np.ndarray | None = None) -> Iterator[tuple[PretrainBatch, tuple]]:
        """(batch of one, reconstruction) of the held-out samples, or of `samples`; `model` is left as it was."""
        training = model.training
        model.eval()
        for sample in self.samples if samples is None else samples:
            batch = self.batches.held_out(np.array([sample])).to(self.device)
            yield batch, model(batch.normalised_images(), batch.cameras, batch.groups)
        model.train(training)


def depth_error(depth_prob: Tensor, depth_map: Tensor, bins: DepthBins) -> tuple[float, int]:
    """Summed |expected - nearest LiDAR depth| (m) over labelled cells of all halves, and how many they are.

    depth_prob: (2, B, N, D, h, w); depth_map: (B, N, H, W).
    """
    centres = bins.edges().to(depth_prob) + bins.step / 2
    expected = (depth_prob * centres[:, None, None]).sum(3)
    nearest = nearest_in_cells(depth_map, STRIDE)
    valid = bins.labels(nearest) != NO_LABEL
    errors = (expected - nearest).abs()[:, valid]
    return float(errors.sum()), errors.numel()
