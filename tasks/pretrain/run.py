"""Pretraining: images and what the method asks of the caches in, a camera backbone out.

metrics.jsonl, events...   losses of every step, figures of held-out samples; TensorBoard's own files
backbone.safetensors       the backbone: what finetuning reads
model.safetensors          everything: the backbone and what the method trains around it
pretrain.png               held-out samples, what is hidden of them and what is rebuilt
bev_colours.npz            with GeoMIM: what its BEV's colours stand for, for other pictures of the same target
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from batches.cbgs import class_balanced
from batches.train_split import training_samples
from common.progress import say
from storage.artifact import Artifact
from storage.atomic import write_bytes
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.samples import split_samples
from tasks.pretrain.task import HeldOutFigures, PretrainTask
from tasks.pretrain.weights import initialise
from training.checkpoint import Checkpoint
from training.device import choose_device, threads
from training.ema import Ema
from training.log import omissions
from training.loop import TrainSpec, train
from training.order import leaving_out, seed_of_rank
from training.prefetch import choose_loaders
from training.ranks import choose_ranks, rank, ranks_here, run_ranks
from training.schedule import Schedule
from training.speed import products


def run(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Pretrain, going on from the artifact's checkpoint where there is one; the summary holds the held-out figures."""
    device = choose_device(config.device)
    ranks = choose_ranks(config.ranks, device, config.batch_size // config.accumulate)
    with threads(config.threads):
        return run_ranks(ranks, device, _pretrain, config, inputs, artifact)


def _pretrain(config: PretrainConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """What every rank does; the summary is rank 0's."""
    first, device = rank() == 0, choose_device(config.device)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    training_samples(index, "pretrain")
    method = config.method.method()(config, config.method, inputs, index)
    train_samples, held_out_samples = split_samples(index, config.held_out)
    drawn_from = class_balanced(index, train_samples, config.seed) if config.sampling == "cbgs" else train_samples
    drawn_from = leaving_out(drawn_from, index.token, config.skip_samples)
    train_samples = np.unique(leaving_out(train_samples, index.token, config.skip_samples))  # none in another's place

    torch.manual_seed(config.seed)
    model = method.build().to(device)
    if config.init:
        coverage = initialise(model, Path(config.init))
        if first:
            say(coverage)
    if not first:
        torch.manual_seed(seed_of_rank(config.seed))  # the same weights, but a drop path of its own
    ema = Ema(model, config.ema) if config.ema and first else None
    result = ema.model if ema else model
    figures = None
    if first:
        evaluator = method.evaluator(held_out_samples, train_samples, device)
        figures = HeldOutFigures(config, evaluator, result, index, inputs.dataroot, held_out_samples)
    spec = TrainSpec(
        "pretrain",
        Schedule(config.steps, config.warmup),
        config.clip_norm,
        config.evaluate_every,
        config.seconds_between_saves,
        choose_loaders(config.loaders, device, ranks_here()),
        config.skip_samples,
    )
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config), config.rate, weight_decay=config.weight_decay, fused=True
    )
    with products(config.precision):
        measured = train(
            spec,
            PretrainTask(config, method, model, drawn_from, figures),
            model.train(),
            optimizer,
            Checkpoint(artifact.path / ".checkpoint.pt"),  # a dot file: gone when the manifest is there
            artifact.path,
            ema,
            after_save=lambda steps: artifact.write_progress(steps, config.steps),
        )
    if first:
        evaluator.draw(result, artifact.path)
        export(result, artifact.path)
        measured |= omissions(artifact.path)
    return {"steps": config.steps, "samples": len(train_samples), "held_out": len(held_out_samples), **measured}


def parameter_groups(model: nn.Module, config: PretrainConfig) -> list[dict[str, Any]]:
    """The optimiser's: what pretraining is for, the backbone, at a rate of its own, and what is thrown away."""
    backbone = list(model.get_submodule("backbone").parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    return [{"params": backbone, "lr": config.rate * config.backbone_rate}, {"params": others, "lr": config.rate}]


def export(model: nn.Module, folder: Path) -> None:
    """The weights, as safetensors; each file whole or not at all."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(weights))
    prefix = "backbone."
    backbone = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    write_bytes(folder / "backbone.safetensors", save(backbone))
