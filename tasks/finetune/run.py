"""Stage `finetune`: a BEVDet on a pretrained backbone, the same from scratch beside it, and their official scores.

Leaves, per arm (`pretrained`, `scratch`): `detector_<arm>.safetensors` and a folder `<arm>/` with `results_nusc.json`,
`evaluation.json` and `log/`. A checkpoint that is evaluated as it is makes one arm, `given`, of which there are no
weights and no log. Over all: `metrics.json`, `report.md`, and the first arm's `results_nusc.json`, its worst samples
`detections_1.png` ... and `detections.json`, the list of these. The tasks that predict maps leave no
`results_nusc.json`, and `segmentations_1.png` or `occupancies_1.png` ... .
"""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from models.bevdet.detector import BevDet
from storage.artifact import Artifact
from storage.atomic import write_bytes, write_json
from storage.depth import DepthReader
from storage.index import Index
from tasks.batches.cbgs import class_balanced
from tasks.errors import UserError
from tasks.finetune.batches import Batch, Batches
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.detect import detect
from tasks.finetune.goals.goal import goal_of
from tasks.finetune.labels import labelled
from tasks.finetune.network import build_detector, build_public, load_backbone, load_detector, save_detector
from tasks.finetune.objective import Objective, Whole
from tasks.finetune.optimiser import parameter_groups
from tasks.finetune.report import report
from tasks.progress import say
from tasks.stage import Inputs
from tasks.training.checkpoint import Checkpoint
from tasks.training.device import choose_device, threads
from tasks.training.ema import Ema
from tasks.training.loop import train
from tasks.training.order import parts_at
from tasks.training.prefetch import choose_loaders
from tasks.training.ranks import choose_ranks, distribute, rank, rank_count, run_ranks, wait_for_ranks
from tasks.training.schedule import cosine_with_warmup

PRETRAINED, SCRATCH, GIVEN = "pretrained", "scratch", "given"
BACKBONE = "backbone.safetensors"  # of the pretrain artifact
WARMUP_START = 1e-3  # factor on the rate at the first step, as in BEVDet


def run(config: FinetuneConfig, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Train and evaluate every arm that is not done yet, then compare. The summary holds the scores of each."""
    device = choose_device(config.device)
    ranks = choose_ranks(config.ranks, device, config.batch_size // config.accumulate)
    arms = arms_of(config)
    with threads(config.threads):
        for arm in arms:
            if not _evaluation_file(artifact.path, arm).is_file():
                run_ranks(ranks, device, _arm, config, inputs, artifact, arm)
            Checkpoint(artifact.path / arm / "checkpoint.pt").remove()
    metrics = {arm: json.loads(_evaluation_file(artifact.path, arm).read_text()) for arm in arms}
    index = Index.open(inputs["ingest"].path / "index.zarr")
    samples = len(labelled(index, config.label_fraction)) if config.trains else 0
    goal = goal_of(config)
    pictures = json.loads((artifact.path / goal.listing).read_text())
    write_json(artifact.path / "metrics.json", metrics)
    told = report(config, metrics, samples, goal.unscored(index), pictures)
    write_bytes(artifact.path / "report.md", told.encode())
    for name in goal.results:
        shutil.copyfile(artifact.path / arms[0] / name, artifact.path / name)
    scores = {arm: {k: m[k] for k in goal.scores} for arm, m in metrics.items() if m is not None}
    return ({"steps": config.steps, "train_samples": samples} if config.trains else {}) | scores


def arms_of(config: FinetuneConfig) -> tuple[str, ...]:
    """What is compared; the first is what the stage is about."""
    if not config.trains:
        return (GIVEN,)
    if config.init == "random":
        return (SCRATCH,)
    return (PRETRAINED, SCRATCH) if config.from_scratch else (PRETRAINED,)


def _arm(config: FinetuneConfig, inputs: Inputs, artifact: Artifact, arm: str) -> None:
    """What every rank does for an arm: train the detector, or read it where training is over; then evaluate it."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    depth = DepthReader(inputs["depth"].path / "depth.zarr") if config.needs_depth else None
    batches = Batches(config, index, inputs.dataroot, depth)
    weights = Path(config.checkpoint) if arm == GIVEN else artifact.path / f"detector_{arm}.safetensors"
    if arm != GIVEN and not weights.is_file():
        _train(config, batches, inputs, artifact, arm, weights)
        wait_for_ranks()  # for rank 0's file
    detector = build_public(config) if config.public_config else build_detector(config)
    told = load_detector(detector, weights, config)
    if rank() == 0 and arm == GIVEN:
        say(f"finetune: {told}")
        write_bytes(artifact.path / "coverage.txt", f"{told}\n".encode())
    _evaluate(detector.to(choose_device(config.device)), batches, artifact.path, arm)


def _train(
    config: FinetuneConfig, batches: Batches, inputs: Inputs, artifact: Artifact, arm: str, weights: Path
) -> None:
    """Train the arm's detector, going on from its checkpoint, and write its weights."""
    first, device = rank() == 0, choose_device(config.device)
    samples = labelled(batches.index, config.label_fraction)
    if len(samples) == 0:
        raise UserError("finetune: the dataset has no sample of the train split; add scenes of train to it")
    drawn_from = class_balanced(batches.index, samples, config.seed) if config.sampling == "cbgs" else samples

    torch.manual_seed(config.seed)  # weights and drop path: the arms differ in the backbone's weights alone
    detector = build_detector(config)
    if arm == PRETRAINED:
        pretrained = config.init == "pretrain"
        told = load_backbone(detector, inputs["pretrain"].path / BACKBONE if pretrained else Path(config.init))
        if first and not pretrained:
            say(f"finetune.init: {told}")
    if not first:
        torch.manual_seed(config.seed + rank())  # the same weights, but a drop path of its own
    detector.to(device).train()
    if config.backbone_rate == 0:
        detector.backbone.eval()  # no drop path
    ema = Ema(detector, config.ema) if config.ema and first else None
    network = distribute(Whole(detector))
    objective = Objective(config, detector, network, device)

    def load_batch(step: int) -> list[Batch]:
        parts = parts_at(step, config.batch_size, config.accumulate)
        made = [batches.training_at(positions, drawn_from) for positions in parts]
        return [batch.pinned() for batch in made] if device.type == "cuda" else made

    train(
        detector,
        torch.optim.AdamW(
            parameter_groups(
                detector,
                config.backbone.depths,
                config.rate,
                config.weight_decay,
                config.layer_decay,
                config.backbone_rate,
            ),
            fused=True,
        ),
        load_batch,
        objective.terms,
        lambda part: part.batch.tokens,
        config.steps,
        lambda step: cosine_with_warmup(
            step, config.steps, min(config.warmup, config.steps // 2), WARMUP_START, config.final_rate
        ),
        config.clip_norm,
        Checkpoint(artifact.path / arm / "checkpoint.pt"),
        artifact.path / arm / "log",
        f"finetune, {arm}",
        config.seconds_between_saves,
        after_save=functools.partial(_tell, config, artifact, arm),
        network=network,
        micro_batches=objective.parts,
        ema=ema,
        loaders=choose_loaders(config.loaders, device, rank_count()),
    )
    if first:
        save_detector(ema.model if ema else detector, weights, config)


def _evaluate(detector: BevDet, batches: Batches, folder: Path, arm: str) -> None:
    """The goal's scores on the split it predicts into the arm's `evaluation.json`; null where there is no truth.

    Of the first arm, the pictures too: of the same samples, or of some of train where there are none.
    """
    config, index, goal = batches.config, batches.index, batches.goal
    samples, pictured = index.samples(goal.split(index)), arm == arms_of(config)[0]
    collected = shown = goal.collected(detect(detector, batches, samples))
    if pictured and len(samples) == 0:
        shown = goal.collected(detect(detector, batches, index.samples("train")[: config.pictures]))
    if rank():
        return
    scores = goal.evaluate(collected, folder / arm)
    if pictured:
        goal.draw(shown, folder)
    write_json(_evaluation_file(folder, arm), scores)


def _evaluation_file(folder: Path, arm: str) -> Path:
    return folder / arm / "evaluation.json"


def _tell(config: FinetuneConfig, artifact: Artifact, arm: str, done: int) -> None:
    arms = arms_of(config)
    artifact.write_progress(arms.index(arm) * config.steps + done, len(arms) * config.steps)
