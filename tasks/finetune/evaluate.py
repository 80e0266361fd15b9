"""Stage `evaluate`: what a detector predicts, and how good that is.

Of a finetune artifact's detector, or of a checkpoint as it is. Leaves `metrics.json`, `report.md`, pictures of the
worst samples `detections_1.png` ... and `detections.json`, the list of these, and `results_nusc.json`, to be handed in.
The tasks that predict maps leave no `results_nusc.json`, and `segmentations_1.png` or `occupancies_1.png` ... . Of a
checkpoint `coverage.txt` says what of it was read.
"""

import json
from pathlib import Path
from typing import Any

from batches.detector import Batches
from common.progress import say
from storage.artifact import Artifact
from storage.atomic import write_bytes, write_json
from storage.index import Index
from tasks.engine.stage import Inputs
from tasks.finetune.config import Evaluation
from tasks.finetune.detect import detect
from tasks.finetune.goals import goal_of
from tasks.finetune.network import build_detector, build_public, load_detector
from tasks.finetune.report import report
from tasks.finetune.run import WEIGHTS
from training.device import choose_device, threads
from training.ranks import choose_ranks, rank, run_ranks

METRICS, REPORT, COVERAGE = "metrics.json", "report.md", "coverage.txt"


def run(config: Evaluation, inputs: Inputs, artifact: Artifact) -> dict[str, Any]:
    """Predict, score, draw and report. The summary holds the scores, nothing where there is no truth."""
    detector = config.detector
    device = choose_device(detector.device)
    ranks = choose_ranks(detector.ranks, device, detector.batch_size // detector.accumulate)
    with threads(detector.threads):
        run_ranks(ranks, device, _evaluate, config, inputs, artifact)
    goal, index = goal_of(detector), Index.open(inputs["ingest"].path / "index.zarr")
    metrics = json.loads((artifact.path / METRICS).read_text())
    pictures = json.loads((artifact.path / goal.listing).read_text())
    trained = inputs["finetune"].summary if "finetune" in inputs else None
    told = report(detector, metrics, trained, goal.unscored(index), pictures)
    write_bytes(artifact.path / REPORT, told.encode())
    return {} if metrics is None else {name: metrics[name] for name in goal.scores}


def _evaluate(config: Evaluation, inputs: Inputs, artifact: Artifact) -> None:
    """What every rank does; rank 0 writes.

    Where the split that is predicted has no samples, pictures are of some of train.
    """
    index = Index.open(inputs["ingest"].path / "index.zarr")
    goal = goal_of(config.detector)(config.detector, index, inputs.dataroot, config.evaluate)
    batches, given = Batches(config.detector, index, inputs.dataroot, truth_of=goal.truth), config.evaluate.checkpoint
    build = build_public if config.evaluate.public_config else build_detector
    detector = build(config.detector, config.evaluate)
    weights = Path(given) if given else inputs["finetune"].path / WEIGHTS
    public = config.evaluate.public_config is not None
    told = load_detector(detector, weights, config.detector, zoomed=not given, public=public)
    if given and rank() == 0:
        say(f"evaluate: {told}")
        write_bytes(artifact.path / COVERAGE, f"{told}\n".encode())
    detector.to(choose_device(config.detector.device))
    samples = index.samples(goal.split(index))
    collected = shown = goal.collected(detect(detector, config.detector, batches, samples))
    if len(samples) == 0:
        shown = goal.collected(
            detect(detector, config.detector, batches, index.samples("train")[: config.evaluate.pictures])
        )
    if rank() == 0:
        scores = goal.evaluate(collected, artifact.path)
        goal.draw(shown, artifact.path)
        write_json(artifact.path / METRICS, scores)
