"""Stage `fit`: train the LiDAR detector on the train split, score it on val, leave `detector.safetensors`."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save

from common.errors import DataError
from common.progress import progress
from dataroot.points import load_points
from models.boxes import Boxes
from models.lidar.detector import LidarDetector, VoxelBatch, voxel_batch
from storage.atomic import write_bytes, write_json
from storage.index import Index
from tasks.batches.lidar import LidarAugmentation, augmented, pasted, sample_boxes
from tasks.batches.train_split import check_boxes, training_samples
from tasks.teacher.config import FitConfig
from tasks.teacher.network import WEIGHTS, build_detector, fit_metadata
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import choose_device, threads
from tasks.training.log import omissions
from tasks.training.loop import train
from tasks.training.order import batch_at, generator_at, leaving_out
from tasks.training.schedule import cosine_with_warmup

METRICS, LOG = "metrics.json", "log"


class Batch(NamedTuple):
    voxels: VoxelBatch
    boxes: list[Boxes]
    tokens: list[str]  # of all samples that are in it, those of pasted objects too


def run(config: FitConfig, inputs: Any, artifact: Any) -> dict[str, Any]:
    """Train, save and evaluate; the summary holds the official scores on val where it has ground truth."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    samples = training_samples(index, "fit")
    learnt_from = leaving_out(samples, index.token, config.skip_samples)
    check_boxes(index, samples, config.min_lidar_points, "fit")
    device = choose_device(config.device)
    steps = steps_of(config, len(samples))
    with threads(config.threads):
        model = _initial(config).to(device)
        # At once where the checkpoint is of the last step: the evaluation was interrupted.
        _train(config, model, index, inputs.dataroot, learnt_from, steps, artifact)
        tensors = {name: t.cpu().contiguous() for name, t in model.state_dict().items()}
        write_bytes(artifact.path / WEIGHTS, save(tensors, fit_metadata(config)))
        scores = _evaluate(config, model, index, inputs.dataroot, artifact.path)
    summary = {"steps": steps, "train_samples": len(np.unique(learnt_from)), **omissions(artifact.path / LOG)}
    if scores is not None:
        write_json(artifact.path / METRICS, scores)
        summary |= {"mAP": scores["mAP"], "NDS": scores["NDS"]}
    return summary


def steps_of(config: FitConfig, samples: int) -> int:
    return max(1, math.ceil(config.epochs * samples / config.batch))


def _initial(config: FitConfig) -> LidarDetector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_detector(config)


def _train(
    config: FitConfig,
    model: LidarDetector,
    index: Index,
    dataroot: Path,
    samples: np.ndarray,
    steps: int,
    artifact: Any,
) -> None:
    device = next(model.parameters()).device
    augmentation = LidarAugmentation(config.flip, config.rotation, config.scale)

    def load_batch(step: int) -> Batch:
        random = generator_at(step, config.seed)
        clouds, boxes, chosen = [], [], batch_at(step, samples, config.batch, config.seed)
        used = chosen.tolist()
        for sample in chosen:
            points = load_points(index, dataroot, int(sample), config.lidar.sweeps)
            truth = sample_boxes(index, int(sample), config.min_lidar_points)
            if config.paste:
                other = int(random.choice(samples))
                cloud = load_points(index, dataroot, other, config.lidar.sweeps)
                objects = sample_boxes(index, other, config.min_lidar_points)
                own = len(truth)
                points, truth = pasted(points, truth, cloud, objects, config.paste, random)
                used += [other] if len(truth) > own else []
            points, truth = augmented(points, truth, augmentation.draw(random))
            clouds.append(torch.from_numpy(points))
            boxes.append(truth)
        tokens = [str(index.token[sample]) for sample in dict.fromkeys(used)]
        batch = Batch(voxel_batch(clouds, config.lidar.grid), boxes, tokens)
        if len(batch.voxels.means) == 1:
            raise DataError(
                f"fit: {', '.join(batch.tokens)}: a single voxel of lidar.range has points in it, of which batch "
                "normalisation has no statistics; name the sample in ingest.leave_out, or widen lidar.range"
            )
        return batch

    def loss_terms(batch: Batch) -> dict[str, torch.Tensor]:
        return model.head.loss(model(batch.voxels.to(device)), batch.boxes)

    model.train()
    train(
        model,
        torch.optim.AdamW(model.parameters(), config.rate, weight_decay=config.weight_decay),
        load_batch,
        loss_terms,
        lambda batch: batch.tokens,
        steps,
        lambda step: cosine_with_warmup(step, steps, min(config.warmup, steps // 2)),
        config.clip,
        Checkpoint(artifact.path / ".checkpoint.pt"),  # a dot file: gone when the manifest is there
        artifact.path / LOG,
        "fit",
        config.seconds_between_saves,
        lambda done: artifact.write_progress(done, steps),
        skip_samples=config.skip_samples,
    )


def detect(
    config: FitConfig, model: LidarDetector, index: Index, dataroot: Path, samples: np.ndarray
) -> dict[int, Boxes]:
    """The detector's boxes of each sample, in its LIDAR_TOP frame."""
    device = next(model.parameters()).device
    model.eval()
    found = {}
    with torch.inference_mode():
        for sample in progress(samples.tolist(), "fit: detect on val", total=len(samples), unit="samples"):
            points = torch.from_numpy(load_points(index, dataroot, sample, config.lidar.sweeps))
            batch = voxel_batch([points], config.lidar.grid).to(device)
            (found[sample],) = model.head.predict(model(batch))
    return found


def _evaluate(
    config: FitConfig, model: LidarDetector, index: Index, dataroot: Path, out: Path
) -> dict[str, Any] | None:
    samples = index.samples("val")
    if len(samples) == 0:
        return None
    from evaluation.official import evaluate  # the devkit takes a second to import

    return evaluate(index, dataroot, detect(config, model, index, dataroot, samples), "val", out, use_lidar=True)
