"""Stage `fit`: train the LiDAR detector on the train split, score it on val, leave `detector.safetensors`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from batches.cbgs import class_balanced
from batches.train_split import check_boxes, training_samples
from batches.voxels import LidarBatches
from common.progress import progress
from dataroot.points import need_lidar
from evaluation.official import evaluate
from models.boxes import Boxes
from models.lidar.detector import LidarDetector
from storage.artifact import Artifact
from storage.atomic import write_bytes, write_json
from storage.index import Index
from tasks.checkpoints import read_tensors
from tasks.engine.stage import Inputs
from tasks.teacher.config import FitConfig
from tasks.teacher.network import WEIGHTS, build_detector, fit_metadata
from tasks.teacher.task import LidarTask
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

METRICS, LOG = "metrics.json", "log"


def run(config: FitConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Train, save and evaluate; the summary holds the official scores on val where it has ground truth."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    need_lidar(index, "fit")
    samples = training_samples(index, "fit")
    check_boxes(index, samples, config.min_lidar_points, "fit")
    device = choose_device(config.device)
    ranks = choose_ranks(config.ranks, device, config.batch_size // config.accumulate)
    with threads(config.threads):
        # At once where the checkpoint is of the last step: the evaluation was interrupted.
        run_ranks(ranks, device, _train, config, inputs, artifact)
        model = build_detector(config).to(device)
        model.load_state_dict(read_tensors(artifact.path / WEIGHTS))
        scores = _evaluate(model, LidarBatches(config, index, inputs.dataroot), artifact.path)
    learnt_from = np.unique(leaving_out(samples, index.token, config.skip_samples))
    summary = {
        "steps": steps_of(config, len(samples)),
        "train_samples": len(learnt_from),
        **omissions(artifact.path / LOG),
    }
    if scores is not None:
        write_json(artifact.path / METRICS, scores)
        summary |= {"mAP": scores["mAP"], "NDS": scores["NDS"]}
    return summary


def steps_of(config: FitConfig, samples: int) -> int:
    """Of training on so many samples."""
    return max(1, math.ceil(config.epochs * samples / config.batch_size))


def _train(config: FitConfig, inputs: Inputs, artifact: Artifact) -> None:
    """What every rank does."""
    first, device = rank() == 0, choose_device(config.device)
    index = Index.open(inputs["ingest"].path / "index.zarr")
    samples = training_samples(index, "fit")
    steps = steps_of(config, len(samples))
    drawn_from = class_balanced(index, samples, config.seed) if config.sampling == "cbgs" else samples
    drawn_from = leaving_out(drawn_from, index.token, config.skip_samples)
    model = _initial(config).to(device).train()
    if not first:
        torch.manual_seed(seed_of_rank(config.seed))  # the same weights, but a dropout of its own
    ema = Ema(model, config.ema) if config.ema and first else None
    spec = TrainSpec(
        "fit",
        Schedule(steps, min(config.warmup, steps // 2)),
        config.clip,
        seconds_between_saves=config.seconds_between_saves,
        loaders=choose_loaders(config.loaders, device, ranks_here()),
        skip_samples=config.skip_samples,
    )
    with products(config.precision):
        train(
            spec,
            LidarTask(config, model, LidarBatches(config, index, inputs.dataroot), drawn_from),
            model,
            torch.optim.AdamW(model.parameters(), config.rate, weight_decay=config.weight_decay, fused=True),
            Checkpoint(artifact.path / ".checkpoint.pt"),  # a dot file: gone when the manifest is there
            artifact.path / LOG,
            ema,
            after_save=lambda done: artifact.write_progress(done, steps),
        )
    if first:
        result = ema.model if ema else model
        tensors = {name: t.detach().cpu().contiguous() for name, t in result.state_dict().items()}
        write_bytes(artifact.path / WEIGHTS, save(tensors, fit_metadata(config)))


def _initial(config: FitConfig) -> LidarDetector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_detector(config)


def detect(model: LidarDetector, batches: LidarBatches, samples: np.ndarray) -> dict[int, Boxes]:
    """The detector's boxes of each sample, in its LIDAR_TOP frame."""
    device = next(model.parameters()).device
    model.eval()
    predicted = {}
    with torch.inference_mode():
        for sample in progress(samples.tolist(), "fit: detect on val", total=len(samples), unit="samples"):
            (predicted[sample],) = model.head.predict(model(batches.evaluation(sample).to(device)))
    return predicted


def _evaluate(model: LidarDetector, batches: LidarBatches, out: Path) -> dict[str, Any] | None:
    index, samples = batches.index, batches.index.samples("val")
    if len(samples) == 0:
        return None
    return evaluate(index, batches.dataroot, detect(model, batches, samples), "val", out, use_lidar=True)
