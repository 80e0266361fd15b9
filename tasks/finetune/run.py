"""Stage `finetune`: one arm, a BEVDet on a pretrained backbone or from random weights.

Leaves `detector.safetensors` and `log/`: losses of every step, TensorBoard's own files.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from batches.cbgs import class_balanced
from batches.detector import Batches
from batches.labels import labelled
from batches.train_split import check_boxes, training_samples
from common.progress import say
from storage.artifact import Artifact
from storage.depth import DepthReader
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.finetune.config import EVALUATE, FinetuneConfig
from tasks.finetune.goals import goal_of
from tasks.finetune.network import build_detector, load_backbone, save_detector
from tasks.finetune.optimiser import parameter_groups
from tasks.finetune.task import DetectorTask
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

WEIGHTS, LOG = "detector.safetensors", "log"
BACKBONE = "backbone.safetensors"  # of the pretrain artifact
WARMUP_START = 1e-3  # factor on the rate at the first step, as in BEVDet


def run(config: FinetuneConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Train the detector, going on from the artifact's checkpoint where there is one."""
    device = choose_device(config.device)
    ranks = choose_ranks(config.ranks, device, config.batch_size // config.accumulate)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    training_samples(index, "finetune")
    samples = labelled(index, config.label_fraction)
    if config.task == "detection":
        check_boxes(index, samples, config.min_lidar_points, "finetune")
    with threads(config.threads):
        run_ranks(ranks, device, _train, config, inputs, artifact)
    learnt_from = np.unique(leaving_out(samples, index.token, config.skip_samples))
    return {"steps": config.steps, "train_samples": len(learnt_from), **omissions(artifact.path / LOG)}


def _train(config: FinetuneConfig, inputs: Inputs, artifact: Artifact) -> None:
    """What every rank does."""
    first, device = rank() == 0, choose_device(config.device)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    depth = DepthReader(inputs["depth"].path / "depth.zarr") if config.needs_depth else None
    goal = goal_of(config)(config, index, inputs.dataroot, EVALUATE)
    batches = Batches(config, index, inputs.dataroot, depth, goal.learnt)
    samples = labelled(index, config.label_fraction)
    drawn_from = class_balanced(index, samples, config.seed) if config.sampling == "cbgs" else samples
    drawn_from = leaving_out(drawn_from, index.token, config.skip_samples)

    torch.manual_seed(config.seed)  # weights and drop path: arms differ in the backbone's weights alone
    detector = build_detector(config)
    if config.init != "random":
        pretrained = config.init == "pretrain"
        told = load_backbone(detector, inputs["pretrain"].path / BACKBONE if pretrained else Path(config.init))
        if first and not pretrained:
            say(f"finetune.init: {told}")
    if not first:
        torch.manual_seed(seed_of_rank(config.seed))  # the same weights, but a drop path of its own
    detector.to(device).train()
    if config.backbone_rate == 0:
        detector.backbone.eval()  # no drop path
    ema = Ema(detector, config.ema) if config.ema and first else None
    warmup = min(config.warmup, config.steps // 2)
    spec = TrainSpec(
        "finetune" if config.init == "pretrain" else "finetune, baseline",
        Schedule(config.steps, warmup, WARMUP_START, config.final_rate),
        config.clip_norm,
        seconds_between_saves=config.seconds_between_saves,
        loaders=choose_loaders(config.loaders, device, ranks_here()),
        skip_samples=config.skip_samples,
    )
    groups = parameter_groups(detector, config.rate, config.weight_decay, config.layer_decay, config.backbone_rate)
    with products(config.precision):
        train(
            spec,
            DetectorTask(config, detector, batches, drawn_from),
            detector,
            torch.optim.AdamW(groups, fused=True),
            Checkpoint(artifact.path / ".checkpoint.pt"),  # a dot file: gone when the manifest is there
            artifact.path / LOG,
            ema,
            after_save=lambda done: artifact.write_progress(done, config.steps),
        )
    if first:
        save_detector(ema.model if ema else detector, artifact.path / WEIGHTS, config)
