"""Stage `finetune`: a BEVDet on the pretrained backbone, the same from scratch beside it, and their official scores.

Leaves, per arm (`pretrained`, `scratch`): `detector_<arm>.safetensors` and a folder `<arm>/` with `results_nusc.json`,
`evaluation.json` and `log/`. Over both: `metrics.json`, `report.md` and `detections.png`.
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from models.bevdet.detector import BevDet
from models.boxes import Boxes
from models.depth_bins import depth_loss
from models.geometry import inverse
from storage.atomic import write_bytes, write_json
from storage.depth import DepthReader
from storage.index import Index
from tasks.errors import UserError
from tasks.evaluation.official import RESULTS, evaluate, evaluation_split, unscored
from tasks.finetune.batches import Batch, Batches
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.network import build_detector, load_backbone, parameter_groups
from tasks.finetune.picture import draw_detections
from tasks.finetune.report import report
from tasks.progress import progress
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import choose_device, threads
from tasks.training.loop import train
from tasks.training.schedule import cosine_with_warmup

PRETRAINED, SCRATCH = "pretrained", "scratch"
WARMUP_START = 1e-3  # factor on the rate at the first step, as in BEVDet


def run(config: FinetuneConfig, inputs: Any, artifact: Any) -> dict[str, Any]:
    """Train and evaluate every arm that is not done yet, then compare. The summary holds mAP and NDS of each."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    samples = index.samples("train")
    if len(samples) == 0:
        raise UserError("finetune: the dataset has no sample of the train split; add scenes of train to it")
    depth = DepthReader(inputs["depth"].path / "depth.zarr") if config.depth_weight > 0 else None
    batches = Batches(config, index, inputs.dataroot, depth)
    arms = (PRETRAINED, SCRATCH) if config.from_scratch else (PRETRAINED,)
    with threads(config.threads):
        for place, arm in enumerate(arms):
            if _evaluation_file(artifact.path, arm).is_file():
                continue
            tell = functools.partial(_tell, artifact, place * config.steps, len(arms) * config.steps)
            backbone = inputs["pretrain"].path / "backbone.safetensors" if arm == PRETRAINED else None
            detector = _trained(config, batches, samples, backbone, artifact.path, arm, tell)
            _evaluate(config, detector, batches, artifact.path, arm)
            Checkpoint(artifact.path / arm / "checkpoint.pt").remove()
        metrics = {arm: json.loads(_evaluation_file(artifact.path, arm).read_text()) for arm in arms}
        _picture(config, batches, artifact.path)
    write_json(artifact.path / "metrics.json", metrics)
    split = evaluation_split(index)
    write_bytes(artifact.path / "report.md", report(config, metrics, len(samples), unscored(index, split)).encode())
    shutil.copyfile(artifact.path / PRETRAINED / RESULTS, artifact.path / RESULTS)
    scores = {arm: {k: m[k] for k in ("mAP", "NDS")} for arm, m in metrics.items() if m is not None}
    return {"steps": config.steps, "train_samples": len(samples), **scores}


def loss_terms(detector: BevDet, batch: Batch, depth_weight: float) -> dict[str, torch.Tensor]:
    """The head's terms, and the depth supervision's where the batch has depth labels."""
    bev, depth_prob = detector(batch.normalised(), batch.cameras)
    terms = detector.head.loss(detector.head(bev), batch.boxes)
    if batch.depth_labels is not None:
        terms["depth"] = depth_weight * depth_loss(depth_prob, batch.depth_labels)
    return terms


def detect(config: FinetuneConfig, detector: BevDet, batches: Batches, samples: np.ndarray) -> dict[int, Boxes]:
    """The detector's boxes of each sample, in its LIDAR_TOP frame, best first."""
    device, index = next(detector.parameters()).device, batches.index
    chunks = [samples[i : i + config.batch_size] for i in range(0, len(samples), config.batch_size)]
    found = {}
    detector.eval()
    with torch.inference_mode():
        for chunk in progress(chunks, "finetune: detect", total=len(chunks), unit="batches"):
            batch = batches.evaluation(chunk).to(device)
            bev, _ = detector(batch.normalised(), batch.cameras)
            for sample, boxes in zip(chunk.tolist(), detector.head.predict(detector.head(bev))):
                found[sample] = boxes.moved(inverse(index.lidar_to_ego[sample]))
    return found


def _trained(
    config: FinetuneConfig,
    batches: Batches,
    samples: np.ndarray,
    backbone: Path | None,
    folder: Path,
    arm: str,
    tell: Any,
) -> BevDet:
    """The arm's detector: trained, going on from its checkpoint, or read where training was over."""
    device = choose_device(config.device)
    torch.manual_seed(config.seed)  # weights and drop path: the arms differ in the backbone's weights alone
    detector = build_detector(config)
    weights = folder / f"detector_{arm}.safetensors"
    if weights.is_file():
        detector.load_state_dict(load_file(weights))
        return detector.to(device)
    if backbone is not None:
        load_backbone(detector, backbone)
    detector.to(device).train()
    train(
        model=detector,
        optimizer=torch.optim.AdamW(parameter_groups(detector, config.weight_decay), config.rate),
        load_batch=lambda step: batches.training(step, samples),
        loss_terms=lambda batch: loss_terms(detector, batch.to(device), config.depth_weight),
        tokens_of=lambda batch: batch.tokens,
        steps=config.steps,
        rate_factor=lambda step: cosine_with_warmup(
            step, config.steps, min(config.warmup, config.steps // 2), WARMUP_START, config.final_rate
        ),
        clip_norm=config.clip_norm,
        checkpoint=Checkpoint(folder / arm / "checkpoint.pt"),
        log_folder=folder / arm / "log",
        what=f"finetune, {arm}",
        seconds_between_saves=config.seconds_between_saves,
        after_save=tell,
    )
    write_bytes(weights, save({name: t.cpu().contiguous() for name, t in detector.state_dict().items()}))
    return detector


def _evaluate(config: FinetuneConfig, detector: BevDet, batches: Batches, folder: Path, arm: str) -> None:
    """Official scores on val (or test) into the arm's `evaluation.json`; null where it has no ground truth."""
    split = evaluation_split(batches.index)
    found = detect(config, detector, batches, batches.index.samples(split))
    scores = evaluate(batches.index, batches.dataroot, found, split, folder / arm, use_camera=True)
    write_json(_evaluation_file(folder, arm), scores)


def _picture(config: FinetuneConfig, batches: Batches, folder: Path) -> None:
    """The pretrained arm's boxes on the evaluated sample (of train where there is none) with most ground truth."""
    index = batches.index
    split = evaluation_split(index)
    split = split if len(index.samples(split)) else "train"
    counts = np.diff(index.box_offsets)
    sample = max(index.samples(split), key=lambda s: counts[s])
    detector = build_detector(config)
    detector.load_state_dict(load_file(folder / f"detector_{PRETRAINED}.safetensors"))
    detector.to(choose_device(config.device))
    found = detect(config, detector, batches, np.array([sample]))[int(sample)]
    draw_detections(folder / "detections.png", index, batches.dataroot, int(sample), found)


def _evaluation_file(folder: Path, arm: str) -> Path:
    return folder / arm / "evaluation.json"


def _tell(artifact: Any, before: int, total: int, done: int) -> None:
    artifact.write_progress(before + done, total)
