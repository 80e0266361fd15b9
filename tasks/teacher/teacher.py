"""Stage `teacher`: BEV features of every sample -> `bev.zarr`, and boxes -> `boxes.zarr`, part by part."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from common.progress import progress, say
from dataroot.points import need_lidar
from evaluation.official import evaluate
from models.boxes import Boxes
from storage.atomic import write_json
from storage.bev import size_of
from storage.boxes import BoxStore
from storage.index import Index
from tasks.teacher.config import TeacherConfig
from tasks.teacher.gate import check
from tasks.teacher.network import WEIGHTS, build_teacher
from tasks.teacher.parts import BEV, Times, open_stores
from tasks.teacher.pool import Job, write_parts
from training.device import choose_device, threads

METRICS = "metrics.json"


def run(config: TeacherConfig, inputs: Any, artifact: Any) -> dict[str, Any]:
    """Check the teacher on annotated samples, then write the parts that are not done.

    The summary says what is stored, how big it is, how big the whole of nuScenes would be, and where the time went.
    """
    index_path = inputs["ingest"].path / "index.zarr"
    index = Index.open(index_path)
    need_lidar(index, "teacher")
    weights = inputs["fit"].path / WEIGHTS if config.weights == "fit" else None
    device = choose_device(config.device)
    with threads(config.threads):
        teacher = build_teacher(config, index, inputs.dataroot, weights)
        gate = check(config, teacher, index, inputs.dataroot, device, artifact.path)
        bev, boxes = open_stores(config, teacher, index, artifact.path)
        for store in (bev, boxes) if boxes else (bev,):
            if store.store.aside is not None:
                say(f"teacher: {store.path} is begun again; what was there is kept as {store.store.aside.name}")
            for damage in store.store.mend():
                say(f"teacher: {damage.path}: {damage.what}; its part is made again")
        pending = sorted({*bev.parts.pending(), *(boxes.parts.pending() if boxes else [])})
        left = sum(len(bev.samples(part)) for part in pending)
        job = Job(config, inputs.dataroot, index_path, weights, artifact.path)
        start, times = time.monotonic(), Times()
        parts = write_parts(job, teacher, index, device, pending)
        for part_times in progress(_by_sample(parts), "teacher", len(index), "samples", len(index) - left):
            times += part_times
    return {
        "samples": len(index),
        "shape": list(teacher.bev_shape),
        "weights": config.weights if config.weights in ("fit", "random") else "checkpoint",
        "stored": size_of(artifact.path / BEV),
        **({"gate": {name: gate[name] for name in ("mAP", "samples")}} if gate else {}),
        **(_scores(index, inputs, artifact, boxes) if boxes else {}),
        **(_speed(left, time.monotonic() - start, times) if left else {}),
    }


def _by_sample(parts: Iterator[tuple[int, Times]]) -> Iterator[Times]:
    """One item a sample, as the progress bar counts; the first of a part has its times."""
    for samples, times in parts:
        yield times
        for _ in range(samples - 1):
            yield Times()


def _speed(samples: int, seconds: float, times: Times) -> dict[str, Any]:
    shares = {name: round(value / samples, 4) for name, value in asdict(times).items()}
    named = ", ".join(f"{name} {value:.3f}" for name, value in shares.items())
    say(f"teacher: {samples / seconds:.2f} samples/s; seconds a sample: {named}")
    return {"samples_per_second": round(samples / seconds, 2), "seconds_a_sample": shares}


def _scores(index: Index, inputs: Any, artifact: Any, store: BoxStore) -> dict[str, float]:
    """The official scores of the boxes on val, where it has ground truth."""
    if len(index.samples("val")) == 0:
        return {}
    found = {int(s): _boxes(*store.read(int(s))) for s in index.samples("val")}
    scores = evaluate(index, inputs.dataroot, found, "val", artifact.path, use_lidar=True)
    if scores is None:
        return {}
    write_json(artifact.path / METRICS, scores)
    return {"mAP": scores["mAP"], "NDS": scores["NDS"]}


def _boxes(box: np.ndarray, score: np.ndarray, label: np.ndarray) -> Boxes:
    box = box.astype(np.float64)
    return Boxes(box[:, :3], box[:, 3:6], box[:, 6], box[:, 7:9], label.astype(np.int64), score.astype(np.float64))
