"""GeoMIM and MIM4D together, on the inputs of both."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from batches.clips import ClipBatch
from batches.geomim import GeoMIMBatch
from models.mim4d.joint import Clip, Joint, JointOutputs
from models.mim4d.video import RayBundle, VideoRendered, VideoRendering
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.geomim.method import GeoMIMEvaluator, GeoMIMPretraining
from tasks.pretrain.methods.joint import Config
from tasks.pretrain.mim4d.held_out import HeldOutVideo
from tasks.pretrain.mim4d.method import MIM4DPretraining, counts_of, targets_of, terms_of
from tasks.pretrain.mim4d.model import render_spec, temporal_spec, volume_grid
from training.speed import autocast
from training.task import Term


class JointBatch(NamedTuple):
    """The same samples as each method wants them."""

    geomim: GeoMIMBatch
    clip: ClipBatch

    @property
    def tokens(self) -> list[str]:
        return self.clip.tokens

    def to(self, device: torch.device) -> "JointBatch":
        return JointBatch(self.geomim.to(device), self.clip.to(device))

    def pinned(self) -> "JointBatch":
        """The same in page-locked memory."""
        return JointBatch(self.geomim.pinned(), self.clip.pinned())


class JointPretraining:
    """A `tasks.pretrain.method.Method`."""

    def __init__(self, config: PretrainConfig, method: Config, inputs: Inputs, index: Index):
        self.config, self.method = config, method
        self.geomim = GeoMIMPretraining(config, method.geomim, inputs, index)
        self.mim4d = MIM4DPretraining(config, method.mim4d, inputs, index)

    def build(self) -> Joint:
        method = self.method.mim4d
        video = VideoRendering(self.method.geomim.context, render_spec(method), temporal_spec(method))
        return self.geomim.built(partial(Joint, grid=volume_grid(method), video=video))

    def batch(self, positions: range, samples: np.ndarray) -> JointBatch:
        return JointBatch(self.geomim.batch(positions, samples), self.mim4d.batch(positions, samples))

    def counts(self, model: Joint, batch: JointBatch) -> dict[str, Tensor]:
        return self.geomim.counts(model, batch.geomim) | counts_of(model.video, batch.clip)

    def terms(self, model: Joint, network: nn.Module, batch: JointBatch) -> list[Term]:
        """Of the one and of the other, each times its method's weight."""
        cameras = model.geometry(batch.geomim.cameras, self.config.image.size)
        clip = self.clip(model, batch.clip, batch.clip.noise)
        with autocast(self.config.precision, batch.clip.images.device):
            images = batch.geomim.normalised_images()
            outputs: JointOutputs = network(images, cameras, batch.geomim.groups, clip)
        rebuilt = self.geomim.terms_of(model, outputs.reconstruction, batch.geomim)
        rendered = terms_of(outputs.rendered, batch.clip, self.method.mim4d, model.video.renderer.spec)
        weighted = ((self.method.geomim_weight, rebuilt), (self.method.mim4d_weight, rendered))
        return [term._replace(weight=weight * term.weight) for weight, terms in weighted for term in terms]

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> "JointEvaluator":
        mim4d = self.method.mim4d.model_copy(update={"probe_samples": 0})  # GeoMIM's probe reads the same lift
        video = HeldOutVideo(self.mim4d.clips, self.render, self.frozen_volume, mim4d, held_out, train, device)
        return JointEvaluator(self.geomim.evaluator(held_out, train, device), video)

    def clip(self, model: Joint, batch: ClipBatch, noise: Tensor | None = None) -> Clip:
        """A batch's clips, for the network."""
        cameras = model.clip_geometry(batch.cameras, self.config.image.size, batch.there)
        rays = RayBundle(batch.origins, batch.directions, noise)
        return Clip(batch.normalised_images(), batch.visible, cameras, targets_of(batch), rays)

    def render(self, model: Joint, batch: ClipBatch) -> VideoRendered:
        """See `MIM4DPretraining.render`."""
        return model.render(self.clip(model, batch))

    def frozen_volume(self, model: Joint, batch: ClipBatch) -> Tensor:
        """See `MIM4DPretraining.frozen_volume`."""
        clip = self.clip(model, batch)
        return model.video.project(model.lift_clip(clip.images, torch.ones_like(clip.visible), clip.cameras)[:, 0])


class JointEvaluator:
    """A `tasks.pretrain.method.Evaluator`: GeoMIM's figures, and MIM4D's with `rendered_` before them."""

    def __init__(self, geomim: GeoMIMEvaluator, video: HeldOutVideo[Joint]):
        self.geomim, self.video = geomim, video

    def evaluate(self, model: Joint) -> dict[str, float]:
        rendered = {f"rendered_{name}": figure for name, figure in self.video.evaluate(model).items()}
        return self.geomim.evaluate(model) | rendered

    def draw(self, model: Joint, folder: Path) -> None:
        """Both pictures, `pretrain.png` and `rendered.png`."""
        self.geomim.draw(model, folder)
        self.video.draw(model, folder, "rendered.png")
