"""Pretraining: caches in, a camera backbone out.

metrics.jsonl, events...   losses of every step, errors on held-out samples; TensorBoard's own files
backbone.safetensors       the Swin, under the names of models.swin: what finetuning reads
model.safetensors          everything: backbone, decoder, view transform, head
pretrain.png               held-out samples: input, mask, target and predicted BEV, depth
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.geomim.model import GeoMIM
from storage.artifact import Artifact
from storage.bev import BevReader
from storage.depth import DepthReader
from storage.index import Index
from tasks.batches.pretrain import PretrainBatch, PretrainBatches
from tasks.errors import UserError
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.held_out import HeldOut, split_samples
from tasks.pretrain.model import build_model
from tasks.pretrain.picture import draw_picture
from tasks.progress import say
from tasks.stage import Inputs
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import choose_device, threads
from tasks.training.log import MetricLog
from tasks.training.loop import train
from tasks.training.order import batch_at, generator_at
from tasks.training.schedule import cosine_with_warmup


def run(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Pretrain, going on from the artifact's checkpoint where there is one; the summary holds the held-out errors."""
    with threads(config.threads):
        return _pretrain(config, inputs, artifact)


def _pretrain(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    device = choose_device(config.device)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    bev = BevReader(inputs["teacher"].path / "bev.zarr")
    depth = DepthReader(inputs["depth"].path / "depth.zarr")
    check_inputs(config, index, bev, depth)
    batches = PretrainBatches(config, inputs.dataroot, index, bev, depth)
    train_samples, held_out_samples = split_samples(index, config.held_out)

    torch.manual_seed(config.seed)
    model = build_model(config, bev.shape[0], bev.attributes.range, bev.attributes.cell_size[0]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), config.rate, weight_decay=config.weight_decay, fused=True)
    checkpoint = Checkpoint(artifact.path / ".checkpoint.pt")  # a dot file: gone when the manifest is there
    held_out = HeldOut(batches, held_out_samples, train_samples, device)

    def load_batch(step: int) -> PretrainBatch:
        samples = batch_at(step, train_samples, config.batch_size, config.seed)
        return batches.training(samples, generator_at(step, config.seed))

    def loss_terms(batch: PretrainBatch) -> dict[str, torch.Tensor]:
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            made = model(batch.normalised_images(), batch.cameras, batch.groups)
        losses = model.losses(made, batch.lidar_bev(), batch.depth_map)
        return {"reconstruction": losses.reconstruction, "depth": model.depth_weight * losses.depth}

    def rate_factor(step: int) -> float:
        return cosine_with_warmup(step, config.steps, config.warmup)

    done, _ = checkpoint.load(model, optimizer)
    for mark in [*range(config.evaluate_every, config.steps, config.evaluate_every), config.steps]:
        if mark < done:
            continue
        train(
            model.train(),
            optimizer,
            load_batch,
            loss_terms,
            lambda batch: batch.tokens,
            mark,
            rate_factor,
            config.clip_norm,
            checkpoint,
            artifact.path,
            "pretrain",
            config.seconds_between_saves,
            lambda steps: artifact.write_progress(steps, config.steps),
        )
        errors = evaluate(model, held_out, artifact.path, mark)

    draw_picture(artifact.path / "pretrain.png", model, held_out, held_out_samples[:2])
    export(model, artifact.path)
    return {"steps": config.steps, "samples": len(train_samples), "held_out": len(held_out_samples), **errors}


def check_inputs(config: PretrainConfig, index: Index, bev: BevReader, depth: DepthReader) -> None:
    """Raise UserError for artifacts that cannot be trained on together."""
    if list(index.token) != bev.tokens:
        raise UserError(f"{bev.path}: holds other samples than the index; run `geomim teacher --force` again")
    if len(index.samples("train")) == 0:
        raise UserError("pretrain: the dataset has no sample in the train split; choose a --version that has one")
    if depth.sweeps < config.depth_sweeps:
        raise UserError(f"pretrain.depth_sweeps is {config.depth_sweeps}, but depth.sweeps keeps only {depth.sweeps}")
    x_size, y_size = bev.attributes.cell_size
    if abs(x_size - y_size) > 1e-6:
        raise UserError(f"lidar.voxel_size gives BEV cells of {x_size:g} x {y_size:g} m; pretraining needs square ones")
    low, high = bev.attributes.range[:2], bev.attributes.range[3:5]
    if config.bev_flip and any(abs(a + b) > 1e-6 for a, b in zip(low, high)):
        raise UserError("pretrain.bev_flip needs a lidar.range that is symmetric about the LiDAR: set it to false")


def evaluate(model: GeoMIM, held_out: HeldOut, folder: Path, steps: int) -> dict[str, float]:
    """Held-out errors after `steps` steps, logged; a run that was killed in between finds them in the log."""
    path = folder / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else []:
        entry = json.loads(line)
        if entry["step"] == steps - 1 and "held_out_reconstruction" in entry:
            return {name: value for name, value in entry.items() if name != "step"}
    errors = held_out.evaluate(model)
    with MetricLog(folder, steps) as log:
        log.write(steps - 1, errors)
    say(
        f"pretrain: {steps} steps, held-out error {errors['held_out_reconstruction']:.4f} "
        f"(mean map {errors['held_out_mean_map']:.4f}, zero {errors['held_out_zero']:.4f}), "
        f"depth {errors['held_out_depth']:.2f} m"
    )
    return errors


def export(model: GeoMIM, folder: Path) -> None:
    """The weights, as safetensors."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    save_file(backbone, folder / "backbone.safetensors")
