"""Plain masked image modelling on its inputs: the index's images, and nothing else."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batches.images import MEAN, STD
from batches.masked import MaskedBatch, MaskedImages
from models.backbones.build import build_backbone
from models.geomim.decoder import Decoder, DecoderSpec
from models.geomim.pixels import PixelMIM, pixel_images, pixel_loss
from storage.atomic import write_bytes
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.frozen import frozen
from tasks.pretrain.methods.pixels import Config
from training.speed import autocast
from training.task import Term


class PixelPretraining:
    """A `tasks.pretrain.method.Method`. All parts of a step have as many tokens, so all count alike."""

    def __init__(self, config: PretrainConfig, method: Config, inputs: Inputs, index: Index):
        self.config, self.method = config, method
        self.images = MaskedImages(config, method, index, inputs.dataroot)

    def build(self) -> PixelMIM:
        """The decoder has GeoMIM's width and depth."""
        swin = self.method.check_backbone(self.config.backbone)
        backbone = build_backbone(swin)
        size = self.method.decoder.model_dump()
        spec = DecoderSpec(**size, cross_view=False, geometry_branch=False, camera_aware=False)
        decoder = Decoder(backbone.channels[2], spec)
        return PixelMIM(backbone, decoder, swin.num_heads[2])

    def batch(self, positions: range, samples: np.ndarray) -> MaskedBatch:
        return self.images.training_at(positions, samples)

    def counts(self, model: PixelMIM, batch: MaskedBatch) -> dict[str, Tensor]:
        return {}

    def terms(self, model: PixelMIM, network: torch.nn.Module, batch: MaskedBatch) -> list[Term]:
        images = batch.normalised_images().flatten(0, 1)
        with autocast(self.config.precision, images.device):
            pixels = network(images, batch.groups)
        return [Term("pixels", 1.0, pixel_loss(pixels, images, batch.groups))]

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> "HeldOutPixels":
        return HeldOutPixels(self.images, held_out, device)


class HeldOutPixels:
    """The error on fixed samples with fixed masks, and that of the answer 0, each token's mean colour."""

    def __init__(self, images: MaskedImages, samples: np.ndarray, device: torch.device):
        self.images, self.samples, self.device = images, samples, device

    def evaluate(self, model: PixelMIM) -> dict[str, float]:
        """`reconstruction` and `zero`; `model` is left as it was."""
        errors = []
        for sample in self.samples:
            batch = self.images.held_out(np.array([sample])).to(self.device)
            images = batch.normalised_images().flatten(0, 1)
            with frozen(model):
                pixels = model(images, batch.groups)
            answers = pixels, torch.zeros_like(pixels)
            errors.append([float(pixel_loss(answer, images, batch.groups)) for answer in answers])
        return dict(zip(("reconstruction", "zero"), np.mean(errors, 0).tolist()))

    def draw(self, model: PixelMIM, folder: Path) -> None:
        """A sample's images, what half 1 shows of them, and what is rebuilt of the rest."""
        from matplotlib.figure import Figure  # no pyplot: no global state

        batch = self.images.held_out(self.samples[:1]).to(self.device)
        images = batch.normalised_images().flatten(0, 1)
        with frozen(model):
            pixels = model(images, batch.groups)[0]
        rebuilt = pixel_images(pixels, images, batch.groups).movedim(1, -1).cpu().numpy()
        shown = batch.images[0].cpu().numpy()
        cell = shown.shape[1] // batch.groups.shape[1]
        visible = (batch.groups == 0).cpu().numpy().repeat(cell, 1).repeat(cell, 2)[..., None]
        figure = Figure(figsize=(2.9 * len(shown), 3.6), layout="constrained")
        axes = figure.subplots(3, len(shown), squeeze=False)
        for camera, image in enumerate(shown):
            masked = np.where(visible[camera % len(visible)], image, 128).astype(np.uint8)
            for row, picture in enumerate((image, masked, ((rebuilt[camera] * STD + MEAN) / 255).clip(0, 1))):
                axes[row, camera].imshow(picture)
                axes[row, camera].set(xticks=[], yticks=[])
            axes[0, camera].set_title(self.images.index.cameras[camera].removeprefix("CAM_").lower(), fontsize=9)
        for row, name in enumerate(("image", "what half 1 shows", "rebuilt from half 1")):
            axes[row, 0].set_ylabel(name, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        write_bytes(folder / "pretrain.png", buffer.getvalue())
