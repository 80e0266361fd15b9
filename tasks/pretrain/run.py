"""Pretraining: caches in, a camera backbone out.

metrics.jsonl, events...   losses of every step, errors on held-out samples; TensorBoard's own files
backbone.safetensors       the Swin, under the names of models.backbones: what finetuning reads
model.safetensors          everything: backbone, decoder, view transform, head
pretrain.png               held-out samples: input, mask, target and predicted BEV, depth; none for target: pixels
bev_colours.npz            with it: what its BEV's colours stand for, for other pictures of the same target
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from common.errors import UserError
from common.progress import say
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.bev import BevReader
from storage.depth import DepthReader
from storage.index import Index
from tasks.batches.cbgs import class_balanced
from tasks.batches.pretrain import PretrainBatch, PretrainBatches
from tasks.batches.train_split import training_samples
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.feature_rank import feature_rank
from tasks.pretrain.held_out import HeldOut, split_samples
from tasks.pretrain.model import build_model
from tasks.pretrain.objective import Objective, load_parts
from tasks.pretrain.picture import COLOURS_FILE, draw_picture
from tasks.pretrain.pixels import HeldOutPixels, PixelObjective, build_pixel_model
from tasks.pretrain.weights import check_public, initialise
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import choose_device, threads
from tasks.training.ema import Ema
from tasks.training.log import omissions
from tasks.training.loop import train
from tasks.training.order import leaving_out, seed_of_rank
from tasks.training.prefetch import choose_loaders
from tasks.training.ranks import choose_ranks, distribute, rank, rank_count, run_ranks
from tasks.training.schedule import cosine_with_warmup


def run(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Pretrain, going on from the artifact's checkpoint where there is one; the summary holds the held-out errors."""
    device = choose_device(config.device)
    ranks = choose_ranks(config.ranks, device, config.batch_size // config.accumulate)
    with threads(config.threads):
        return run_ranks(ranks, device, _pretrain, config, inputs, artifact)


def _pretrain(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """What every rank does; the summary is rank 0's."""
    first, device = rank() == 0, choose_device(config.device)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    bev = BevReader(inputs["teacher"].path / "bev.zarr")
    depth = DepthReader(inputs["depth"].path / "depth.zarr")
    check_inputs(config, index, bev, depth)
    batches = PretrainBatches(config, inputs.dataroot, index, bev, depth)
    train_samples, held_out_samples = split_samples(index, config.held_out)
    drawn_from = class_balanced(index, train_samples, config.seed) if config.sampling == "cbgs" else train_samples
    drawn_from = leaving_out(drawn_from, index.token, config.skip_samples)
    train_samples = np.unique(leaving_out(train_samples, index.token, config.skip_samples))  # none in another's place

    torch.manual_seed(config.seed)
    if config.target == "pixels":
        model = build_pixel_model(config).to(device)
    else:
        model = build_model(config, bev.shape[0], bev.attributes.point_range, bev.attributes.cell_size[0]).to(device)
        for unused in (model.view_transform.downsample, model.head):
            unused.requires_grad_(config.reconstruction_weight > 0)  # ranks wait for gradients of whatever asks for one
    model.backbone.checkpointing = model.decoder.checkpointing = config.checkpointing
    if config.public_config:
        check_public(config, model)
    if config.init:
        told = initialise(model, Path(config.init))
        if first:
            say(told)
    if not first:
        torch.manual_seed(seed_of_rank(config.seed))  # the same weights, but a drop path of its own
    ema = Ema(model, config.ema) if config.ema and first else None
    result = ema.model if ema else model
    network = distribute(model)
    if config.target == "pixels":
        objective = PixelObjective(config, network, device)
        held_out = HeldOutPixels(batches, held_out_samples, device) if first else None
    else:
        objective = Objective(config, model, network, device)
        held_out = HeldOut(batches, held_out_samples, train_samples, device) if first else None

    def load_batch(step: int) -> list[PretrainBatch]:
        parts = load_parts(batches, drawn_from, step)
        return [part.pinned() for part in parts] if device.type == "cuda" else parts

    def evaluate(steps: int) -> dict[str, float]:
        errors = held_out.evaluate(result)
        errors["held_out_rank"] = feature_rank(result.backbone, batches, held_out_samples, device)
        marks = {mark: errors.get(f"held_out_{mark.replace(' ', '_')}") for mark in ("mean map", "zero")}
        told = ", ".join(f"{mark} {value:.4f}" for mark, value in marks.items() if value is not None)
        rank_told = f"features of rank {errors['held_out_rank']:.1f}"
        say(f"pretrain: {steps} steps, held-out error {errors['held_out_reconstruction']:.4f} ({told}), {rank_told}")
        return errors

    errors = train(
        model.train(),
        torch.optim.AdamW(parameter_groups(model, config), config.rate, weight_decay=config.weight_decay, fused=True),
        load_batch,
        objective.terms,
        lambda part: part.batch.tokens,
        config.steps,
        lambda step: cosine_with_warmup(step, config.steps, config.warmup),
        config.clip_norm,
        Checkpoint(artifact.path / ".checkpoint.pt"),  # a dot file: gone when the manifest is there
        artifact.path,
        "pretrain",
        config.seconds_between_saves,
        after_save=lambda steps: artifact.write_progress(steps, config.steps),
        network=network,
        micro_batches=objective.parts,
        ema=ema,
        every=config.evaluate_every,
        at_mark=evaluate,
        loaders=choose_loaders(config.loaders, device, rank_count()),
        skip_samples=config.skip_samples,
    )
    if first:
        if config.target == "bev":
            (artifact.path / COLOURS_FILE).unlink(missing_ok=True)  # of an interrupted run: nothing vouches for it
            draw_picture(artifact.path / "pretrain.png", result, held_out, held_out_samples[:2])
        export(result, artifact.path)
        errors |= omissions(artifact.path)
    return {"steps": config.steps, "samples": len(train_samples), "held_out": len(held_out_samples), **errors}


def parameter_groups(model: nn.Module, config: PretrainConfig) -> list[dict]:
    """The optimiser's: what pretraining is for, the backbone, at a rate of its own, and what is thrown away."""
    backbone = list(model.backbone.parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    return [{"params": backbone, "lr": config.rate * config.backbone_rate}, {"params": others, "lr": config.rate}]


def check_inputs(config: PretrainConfig, index: Index, bev: BevReader, depth: DepthReader) -> None:
    """Raise UserError for artifacts that cannot be trained on together."""
    if list(index.token) != bev.tokens:
        raise UserError(f"{bev.path}: holds other samples than the index; run `geomim teacher --force` again")
    training_samples(index, "pretrain")
    if depth.sweeps < config.depth_sweeps:
        raise UserError(f"pretrain.depth_sweeps is {config.depth_sweeps}, but depth.sweeps keeps only {depth.sweeps}")
    x_size, y_size = bev.attributes.cell_size
    if abs(x_size - y_size) > 1e-6:
        raise UserError(f"lidar.voxel_size gives BEV cells of {x_size:g} x {y_size:g} m; pretraining needs square ones")
    low, high = bev.attributes.point_range[:2], bev.attributes.point_range[3:5]
    if config.bev_flip and any(abs(a + b) > 1e-6 for a, b in zip(low, high)):
        raise UserError("pretrain.bev_flip needs a lidar.range that is symmetric about the LiDAR: set it to false")


def export(model: nn.Module, folder: Path) -> None:
    """The weights, as safetensors; each file whole or not at all."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(weights))
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    write_bytes(folder / "backbone.safetensors", save(backbone))
