"""Stage `teacher`: BEV features of every sample -> `bev.zarr`, and boxes -> `boxes.zarr`, part by part.

Several processes, of several machines too, may write at once, each parts of its own.
"""

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from common.progress import counting, say
from dataroot.points import need_lidar
from evaluation.official import evaluate
from models.boxes import Boxes
from storage.atomic import write_json
from storage.bev import BevReader, size_of
from storage.boxes import BoxStore
from storage.index import Index
from storage.leases import PartLeases
from storage.part_board import PartBoard
from tasks.teacher.config import TeacherConfig
from tasks.teacher.gate import check, read_gate
from tasks.teacher.network import WEIGHTS, build_teacher
from tasks.teacher.parts import BEV, BOXES, Times
from tasks.teacher.pool import Job, write_parts
from training.device import choose_device, threads

INDEX = "index.zarr"
METRICS = "metrics.json"


def write(config: TeacherConfig, inputs: Any, artifact: Any, leases: PartLeases) -> dict[str, Any]:
    """Check the teacher on annotated samples, then write the parts that are not done, with whoever else does.

    Says where the time of this process went, if it wrote any.
    """
    index_path = inputs["ingest"].path / INDEX
    index = Index.open(index_path)
    need_lidar(index, "teacher")
    weights = inputs["fit"].path / WEIGHTS if config.weights == "fit" else None
    device = choose_device(config.device)
    with threads(config.threads):
        teacher = build_teacher(config, index, inputs.dataroot, weights)
        check(config, teacher, index, inputs.dataroot, device, artifact.path)
        job = Job(config, inputs.dataroot, index_path, weights, artifact.path)
        writer = job.writer(teacher, index, device)
        stores = [writer.bev.store, *([writer.boxes.store] if writer.boxes else [])]
        for store in stores:
            if store.aside is not None:
                say(f"teacher: {store.path} is begun again; what was there is kept as {store.aside.name}")
        board = PartBoard(stores, leases)
        left = sum(len(writer.bev.samples(part)) for part in board.left)
        start, times, written = time.monotonic(), Times(), 0
        with counting("teacher", len(index), "samples", len(index) - left) as count:
            for part, part_times in write_parts(job, writer, board, device):
                samples = len(writer.bev.samples(part))
                for _ in range(samples):
                    count()
                if part_times is not None:
                    written, times = written + samples, times + part_times
    return _speed(written, time.monotonic() - start, times) if written else {}


def run(config: TeacherConfig, inputs: Any, artifact: Any) -> dict[str, Any]:
    """What the parts hold, when all are there: how much is stored, how much all of nuScenes would be, the scores."""
    index = Index.open(inputs["ingest"].path / INDEX)
    gate = read_gate(artifact.path)
    return {
        "samples": len(index),
        "shape": list(BevReader(artifact.path / BEV).shape),
        "weights": config.weights if config.weights in ("fit", "random") else "checkpoint",
        "stored": size_of(artifact.path / BEV),
        **({"gate": {name: gate[name] for name in ("mAP", "samples")}} if gate else {}),
        **(_scores(index, inputs, artifact, config) if config.detections else {}),
    }


def _speed(samples: int, seconds: float, times: Times) -> dict[str, Any]:
    shares = {name: round(value / samples, 4) for name, value in asdict(times).items()}
    named = ", ".join(f"{name} {value:.3f}" for name, value in shares.items())
    say(f"teacher: {samples / seconds:.2f} samples/s; seconds a sample: {named}")
    return {"samples_per_second": round(samples / seconds, 2), "seconds_a_sample": shares}


def _scores(index: Index, inputs: Any, artifact: Any, config: TeacherConfig) -> dict[str, float]:
    """The official scores of the boxes on val, where it has ground truth."""
    if len(index.samples("val")) == 0:
        return {}
    store = BoxStore(artifact.path / BOXES, index.token, BevReader(artifact.path / BEV).attributes.part_size)
    found = {int(s): _boxes(*store.read(int(s))) for s in index.samples("val")}
    scores = evaluate(index, inputs.dataroot, found, "val", artifact.path, use_lidar=True)
    if scores is None:
        return {}
    write_json(artifact.path / METRICS, scores)
    return {"mAP": scores["mAP"], "NDS": scores["NDS"]}


def _boxes(box: np.ndarray, score: np.ndarray, label: np.ndarray) -> Boxes:
    box = box.astype(np.float64)
    return Boxes(box[:, :3], box[:, 3:6], box[:, 6], box[:, 7:9], label.astype(np.int64), score.astype(np.float64))
