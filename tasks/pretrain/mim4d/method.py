"""MIM4D on its inputs: the index's images and LiDAR sweeps, and nothing else."""

import numpy as np
import torch
from torch import Tensor, nn

from batches.clips import ClipBatch, Clips, ClipSpec
from batches.rays import Box
from dataroot.points import need_lidar
from models.mim4d.network import MIM4D
from models.mim4d.render_loss import depth_loss, rgb_loss
from models.mim4d.renderer import RenderSpec
from models.mim4d.video import RayBundle, Targets, VideoRendered, VideoRendering
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods.mim4d import Config
from tasks.pretrain.mim4d.held_out import HeldOutVideo
from tasks.pretrain.mim4d.model import build_model
from training.speed import autocast
from training.task import Term

PARTS = "direct", "rebuilt"  # as in `VideoRendered`


class MIM4DPretraining:
    """A `tasks.pretrain.method.Method`."""

    def __init__(self, config: PretrainConfig, method: Config, inputs: Inputs, index: Index):
        self.config, self.method = config, method
        need_lidar(index, f"pretrain.method {self.method.name}")
        self.clips = Clips(config, clip_spec(self.method), index, inputs.dataroot)

    def build(self) -> MIM4D:
        return build_model(self.config, self.method)

    def batch(self, positions: range, samples: np.ndarray) -> ClipBatch:
        return self.clips.training_at(positions, samples)

    def counts(self, model: MIM4D, batch: ClipBatch) -> dict[str, Tensor]:
        return counts_of(model.video, batch)

    def terms(self, model: MIM4D, network: nn.Module, batch: ClipBatch) -> list[Term]:
        plan = model.geometry(batch.cameras, self.config.image.size, batch.there)
        with autocast(self.config.precision, batch.images.device):
            images, rays = batch.normalised_images(), rays_of(batch, batch.noise)
            rendered = network(images, batch.visible, plan, targets_of(batch), rays)
        return terms_of(rendered, batch, self.method, model.video.renderer.spec)

    def evaluator(self, held_out: np.ndarray, train: np.ndarray, device: torch.device) -> HeldOutVideo[MIM4D]:
        return HeldOutVideo(self.clips, self.render, self.frozen_volume, self.method, held_out, train, device)

    def render(self, model: MIM4D, clip: ClipBatch) -> VideoRendered:
        """A clip's frames, with nothing random."""
        plan = model.geometry(clip.cameras, self.config.image.size, clip.there)
        return model(clip.normalised_images(), clip.visible, plan, targets_of(clip), rays_of(clip))

    def frozen_volume(self, model: MIM4D, clip: ClipBatch) -> Tensor:
        """(B, C, Z, Y, X) of the key frames, with nothing hidden."""
        plan = model.geometry(clip.cameras, self.config.image.size, clip.there)
        lifted = model.lift(clip.normalised_images(), torch.ones_like(clip.visible), plan)
        return model.video.project(lifted[:, 0])


def clip_spec(method: Config) -> ClipSpec:
    """What is hidden of a clip and rendered of it."""
    volume, rays = method.volume, method.render.rays
    return ClipSpec(method.frames, method.mask_ratio, method.mask_cell, rays, Box(volume.low, volume.high))


def targets_of(batch: ClipBatch) -> Targets:
    """What of a clip is rendered, for the network."""
    return Targets(batch.target, batch.others, batch.others_there, batch.to_other)


def rays_of(batch: ClipBatch, noise: Tensor | None = None) -> RayBundle:
    """A clip's rays, for the network. noise: None places their samples evenly."""
    return RayBundle(batch.origins, batch.directions, noise)


def terms_of(rendered: VideoRendered, batch: ClipBatch, method: Config, spec: RenderSpec) -> list[Term]:
    """The loss: colour and depth of the target frames, from their own volumes and from the others'.

    Means over all rays of a batch, whichever frame they are of. Those of weight 0 are left out.
    """
    rgb, depths = batch.colours.flatten(0, 1), batch.depths.flatten(0, 1)
    terms = []
    for name, outputs, rays in zip(PARTS, rendered, learnt_rays(batch)):
        if outputs is not None:
            kept = outputs._replace(hit=outputs.hit & rays.flatten(0, 1))
            terms.append(Term(f"{name}_rgb", method.render.rgb_weight, rgb_loss(kept, rgb)))
            terms.append(Term(f"{name}_depth", method.render.depth_weight, depth_loss(kept, depths, spec.scale)))
    return [term for term in terms if term.weight > 0]


def counts_of(video: VideoRendering, batch: ClipBatch) -> dict[str, Tensor]:
    """Of the rays that each term is a mean over."""
    hit = video.renderer.hits(batch.origins.flatten(0, 1), batch.directions.flatten(0, 1)).view_as(batch.cast)
    counts = {}
    for name, rays in zip(PARTS, learnt_rays(batch)):
        counts[f"{name}_rgb"] = (hit & rays).sum()
        counts[f"{name}_depth"] = (hit & rays & (batch.depths > 0)).sum()
    return counts


def learnt_rays(batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """Which rays (B, K, R) count: all that are cast, and, of frames rebuilt from others, where there are any."""
    return batch.cast, batch.cast & batch.others_there.any(-1, keepdim=True)
