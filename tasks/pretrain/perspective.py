"""Pretraining in the image plane, on its inputs: the index's images and boxes."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batches.perspective import PerspectiveBatch, PerspectiveImages
from batches.train_split import check_boxes
from models.backbones.build import build_backbone
from models.focal_loss import heatmap_loss
from models.names import CLASSES
from models.perspective import FINER, PerspectiveDetector
from storage.atomic import write_bytes
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.frozen import frozen
from tasks.pretrain.methods.perspective import Config
from tasks.pretrain.samples import PICTURED, spread
from training.speed import autocast
from training.task import Term

BLIND_OF = 64  # training samples, at most, of the answer that sees nothing
_ANSWERS = torch.linspace(0.01, 0.99, 99)  # the probabilities among which it is the best


class PerspectivePretraining:
    """A `tasks.pretrain.method.Method`."""

    def __init__(self, config: PretrainConfig, method: Config, inputs: Inputs, index: Index):
        self.config, self.method = config, method
        check_boxes(index, index.samples("train"), method.min_lidar_points, "pretrain.method")
        stride = config.backbone.strides[2] // FINER
        self.images = PerspectiveImages(config, stride, method.min_lidar_points, index, inputs.dataroot)

    def build(self) -> PerspectiveDetector:
        backbone = build_backbone(self.config.backbone)
        return PerspectiveDetector(backbone, len(CLASSES), self.method.width)

    def batch(self, positions: range, samples: np.ndarray) -> PerspectiveBatch:
        return self.images.training_at(positions, samples)

    def counts(self, model: PerspectiveDetector, batch: PerspectiveBatch) -> dict[str, Tensor]:
        return {"centers": (batch.heatmaps == 1).sum()}

    def terms(self, model: PerspectiveDetector, network: torch.nn.Module, batch: PerspectiveBatch) -> list[Term]:
        images = batch.normalised_images()
        with autocast(self.config.precision, images.device):
            logits = network(images)
        return [Term("centers", 1.0, heatmap_loss(logits, batch.heatmaps.flatten(0, 1)))]

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> "HeldOutCenters":
        return HeldOutCenters(self.images, held_out, train, device)


class HeldOutCenters:
    """The loss on fixed samples, and that of the best answer without images by camera, class and row of cells."""

    def __init__(self, images: PerspectiveImages, samples: np.ndarray, train: np.ndarray, device: torch.device):
        self.images, self.samples, self.device = images, samples, device
        targets = torch.cat([images.held_out([sample]).heatmaps for sample in spread(train, BLIND_OF)])
        hits = (targets == 1).sum((0, 4), dtype=torch.float32)[..., None]
        misses = ((1 - targets) ** 4 * (targets < 1)).sum((0, 4))[..., None]
        costs = -hits * _ANSWERS.log() * (1 - _ANSWERS) ** 2 - misses * (1 - _ANSWERS).log() * _ANSWERS**2
        best = _ANSWERS[costs.argmin(-1)].logit()
        self._blind = best[..., None].expand(targets.shape[1:])  # (N, classes, h, w)

    def evaluate(self, model: PerspectiveDetector) -> dict[str, float]:
        """`centers` and `blind`; `model` is left as it was."""
        errors = []
        for sample in self.samples:
            batch = self.images.held_out([sample]).to(self.device)
            with frozen(model):
                logits = model(batch.normalised_images())
            answers = logits, self._blind.to(self.device)
            errors.append([float(heatmap_loss(answer, batch.heatmaps[0])) for answer in answers])
        return dict(zip(("centers", "blind"), np.mean(errors, 0).tolist()))

    def draw(self, model: PerspectiveDetector, folder: Path) -> None:
        """Some samples' images below their true centres and below what is found."""
        from matplotlib.figure import Figure  # no pyplot: no global state

        batch = self.images.held_out(self.samples[:PICTURED]).to(self.device)
        with frozen(model):
            found = model(batch.normalised_images()).sigmoid().unflatten(0, batch.images.shape[:2])
        cameras = batch.images.shape[1]
        figure = Figure(figsize=(2.9 * cameras, 2.4 * len(batch.tokens)), layout="constrained")
        axes = figure.subplots(2 * len(batch.tokens), cameras, squeeze=False)
        for sample in range(len(batch.tokens)):
            for row, (name, heat) in enumerate((("true", batch.heatmaps), ("found", found)), 2 * sample):
                for camera in range(cameras):
                    axis, image = axes[row, camera], batch.images[sample, camera].cpu().numpy()
                    axis.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=400)
                    extent = (0, image.shape[1], image.shape[0], 0)
                    highest = heat[sample, camera].amax(0).cpu().numpy()
                    axis.imshow(highest, cmap="inferno", alpha=highest.clip(0, 1) ** 0.5, vmin=0, vmax=1, extent=extent)
                    axis.set(xticks=[], yticks=[])
                    if row == 0:
                        axis.set_title(self.images.index.cameras[camera].removeprefix("CAM_").lower(), fontsize=9)
                axes[row, 0].set_ylabel(name, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        write_bytes(folder / "pretrain.png", buffer.getvalue())
