"""What a step of pretraining minimises, in parts: a rank's share of each micro-batch.

The parts' losses are such that their mean over ranks and micro-batches is the loss of all samples taken together.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.depth_bins import NO_LABEL
from models.geomim.model import GeoMIM
from tasks.batches.pretrain import PretrainBatch, PretrainBatches
from tasks.pretrain.config import PretrainConfig
from tasks.training.order import parts_at
from tasks.training.ranks import weights_of_parts


def load_parts(batches: PretrainBatches, samples: np.ndarray, step: int) -> list[PretrainBatch]:
    """This rank's share of each micro-batch of a step."""
    parts = parts_at(step, batches.config.batch_size, batches.config.accumulate)
    return [batches.training_at(positions, samples) for positions in parts]


class Part(NamedTuple):
    """A rank's share of a micro-batch, on the device."""

    batch: PretrainBatch
    labelled: Tensor  # (): its cells with a depth label, relative to the mean over a step's parts


class Objective:
    """The loss whose mean over parts and ranks is that of the step's samples taken together.

    The mean over BEV cells is one of equal counts. Depth is averaged over the cells that LiDAR hit, of which each part
    has another number: its mean counts as much as it has cells.
    """

    def __init__(self, config: PretrainConfig, model: GeoMIM, network: nn.Module, device: torch.device):
        self.config, self.model, self.network, self.device = config, model, network, device

    def parts(self, batches: list[PretrainBatch]) -> list[Part]:
        """A rank's batches of one step, moved; called on all ranks."""
        moved = [batch.to(self.device) for batch in batches]
        bins = self.model.view_transform.bins
        cells = [(bins.labels(batch.depth_map) != NO_LABEL).sum() for batch in moved]
        return [Part(*pair) for pair in zip(moved, weights_of_parts(torch.stack(cells).float()))]

    def terms(self, part: Part) -> dict[str, Tensor]:
        """The weighted losses of a part, those of weight 0 left out."""
        batch, config = part.batch, self.config
        cameras = self.model.geometry(batch.cameras, config.image.size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            made = self.network(batch.normalised_images(), cameras, batch.groups)
        losses = self.model.losses(made, batch.lidar_bev(), batch.depth_map)
        terms = {
            "reconstruction": (config.reconstruction_weight, losses.reconstruction),
            "depth": (config.depth_weight, losses.depth * part.labelled),
        }
        return {name: weight * loss for name, (weight, loss) in terms.items() if weight > 0}
