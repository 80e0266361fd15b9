"""The mean colour: a way of pretraining that teaches nothing, in one file."""

import io
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from batches.mask_config import MaskConfig
from batches.masked import MaskedBatch, MaskedImages
from models.backbones.build import build_backbone
from storage.atomic import write_bytes
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.method_config import MethodConfig
from training.task import Term


class Config(MaskConfig, MethodConfig):
    """Which colour is an image, on average?"""

    name: Literal["mean_colour"] = "mean_colour"
    entry: ClassVar[str] = f"{__name__}:MeanColour"
    weight: float = 1.0


class Colour(nn.Module):
    """A backbone and what makes a colour of its last map."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(backbone.channels[-1], 3)

    def forward(self, images: Tensor, groups: Tensor) -> Tensor:
        """(M, 3) of images (M, 3, H, W)."""
        return self.head(self.backbone(images, groups)[-1].mean((2, 3)))


class MeanColour:
    def __init__(self, config, method: Config, inputs: Inputs, index: Index):
        self.method, self.images = method, MaskedImages(config, method, index, inputs.dataroot)
        self.backbone = config.backbone

    def build(self) -> Colour:
        return Colour(build_backbone(self.backbone))

    def batch(self, positions: range, samples: np.ndarray) -> MaskedBatch:
        return self.images.training_at(positions, samples)

    def counts(self, model: Colour, batch: MaskedBatch) -> dict[str, Tensor]:
        return {}

    def terms(self, model: Colour, network: nn.Module, batch: MaskedBatch) -> list[Term]:
        images = batch.normalised_images().flatten(0, 1)
        return [Term("colour", self.method.weight, error(network(images, batch.groups), images))]

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> "Evaluator":
        return Evaluator(self.images.held_out(held_out).to(device))


class Evaluator:
    def __init__(self, batch: MaskedBatch):
        self.images, self.groups = batch.normalised_images().flatten(0, 1), batch.groups[:1]

    @torch.no_grad()
    def evaluate(self, model: Colour) -> dict[str, float]:
        found = model.eval()(self.images, self.groups)
        model.train()
        return {"colour": float(error(found, self.images)), "zero": float(error(torch.zeros_like(found), self.images))}

    @torch.no_grad()
    def draw(self, model: Colour, folder: Path) -> None:
        colours = model.eval()(self.images, self.groups)[:, None].mul(32).add(128).clamp(0, 255).byte().cpu().numpy()
        file = io.BytesIO()
        Image.fromarray(colours).save(file, "PNG")
        write_bytes(folder / "pretrain.png", file.getvalue())


def error(colours: Tensor, images: Tensor) -> Tensor:
    return (colours.float() - images.mean((2, 3))).square().mean()
