"""`pretrain.target: pixels`: what the stage does otherwise where images are all that there is to rebuild."""

import numpy as np
import torch
from torch import Tensor, nn

from models.geomim.decoder import Decoder
from models.geomim.pixels import PixelMIM, pixel_loss
from tasks.backbone import build_backbone
from tasks.batches.pretrain import PretrainBatch, PretrainBatches
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.objective import Part


def build_pixel_model(config: PretrainConfig) -> PixelMIM:
    """Initialised from torch's global generator; the decoder has GeoMIM's width and depth."""
    backbone, d = build_backbone(config.backbone), config.decoder
    decoder = Decoder(
        backbone.channels[2], d.width, d.num_heads, d.depth, cross_view=False, geometry_branch=False, camera_aware=False
    )
    return PixelMIM(backbone, decoder, config.backbone.num_heads[2])


class PixelObjective:
    """The pixels' loss; every part of a step counts alike, for all have the same number of tokens."""

    def __init__(self, config: PretrainConfig, network: nn.Module, device: torch.device):
        self.config, self.network, self.device = config, network, device

    def parts(self, batches: list[PretrainBatch]) -> list[Part]:
        """A rank's batches of one step, moved."""
        return [Part(batch.to(self.device), torch.ones((), device=self.device)) for batch in batches]

    def terms(self, part: Part) -> dict[str, Tensor]:
        images = part.batch.normalised_images().flatten(0, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            made = self.network(images, part.batch.groups)
        return {"pixels": pixel_loss(made, images, part.batch.groups)}


class HeldOutPixels:
    """The error on fixed samples with fixed masks, and that of the answer 0, each token's mean colour."""

    def __init__(self, batches: PretrainBatches, samples: np.ndarray, device: torch.device):
        self.batches, self.samples, self.device = batches, samples, device

    @torch.no_grad()
    def evaluate(self, model: PixelMIM) -> dict[str, float]:
        """`held_out_reconstruction` and `held_out_zero`; `model` is left as it was."""
        training, errors = model.training, []
        model.eval()
        for sample in self.samples:
            batch = self.batches.held_out(np.array([sample])).to(self.device)
            images = batch.normalised_images().flatten(0, 1)
            made = model(images, batch.groups)
            answers = made, torch.zeros_like(made)
            errors.append([float(pixel_loss(answer, images, batch.groups)) for answer in answers])
        model.train(training)
        return dict(zip(("held_out_reconstruction", "held_out_zero"), np.mean(errors, 0).tolist()))
