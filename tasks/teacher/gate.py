"""The gate before caching: what the teacher detects on a few annotated samples. A wrong teacher costs days later."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.progress import progress, say
from dataroot.points import load_points
from evaluation.quick import annotated_samples, average_precisions
from models.boxes import Boxes
from models.lidar.teacher import Teacher
from storage.atomic import write_json
from storage.checksum import crc32c
from storage.index import Index
from tasks.teacher.config import TeacherConfig

GATE = "gate.json"
LEAST = 0.3  # mAP, where the config does not say
NOTHING = 0.02  # AP below which a class counts as not found


def check(
    config: TeacherConfig, teacher: Teacher, index: Index, dataroot: Path, device: torch.device, folder: Path
) -> dict[str, Any] | None:
    """`mAP` (of the classes that are there), `samples` and `classes` (name -> AP), kept in `folder/gate.json`.

    None where nothing can be measured.

    Raises UserError where the mAP is below `config.min_map`, and where that is given and cannot be measured.
    """
    samples = annotated_samples(index, config.gate_samples)
    if unmeasured := _why_unmeasured(config, teacher, index, samples):
        # Random weights are for trials, and below any mAP.
        if config.min_map and config.weights != "random":
            raise UserError(
                f"teacher: {unmeasured}, so teacher.min_map = {config.min_map:g} cannot be measured and nothing is "
                "cached. To cache it all the same, set teacher.min_map to 0"
            )
        say(f"teacher: {unmeasured}: nothing was checked")
        return None
    gate = read_gate(folder, len(samples))
    if gate is None:
        found = _detect(teacher, index, dataroot, samples, config.lidar.sweeps, device)
        # Whoever else began at the same time may have measured too, on another device, and finished the stage by now:
        # what it wrote stays.
        gate = read_gate(folder, len(samples))
    if gate is None:
        precisions = average_precisions(index, found)
        gate = {"mAP": float(np.mean(list(precisions.values()))), "samples": len(samples), "classes": precisions}
        write_json(folder / GATE, gate | {"crc32c": _sum(gate)})
    named = ", ".join(f"{name} {value:.2f}" for name, value in gate["classes"].items())
    say(f"teacher: mAP {gate['mAP']:.3f} of these classes on {gate['samples']} annotated samples: {named}")
    least = LEAST if config.min_map is None else config.min_map
    if gate["mAP"] < least:
        raise UserError(
            f"teacher: mAP {gate['mAP']:.3f} on {gate['samples']} annotated samples is below teacher.min_map = "
            f"{least:g}, so nothing is cached. {_likely_reason(gate['classes'])}. "
            "To cache it all the same, lower teacher.min_map"
        )
    return gate


def read_gate(folder: Path, samples: int | None = None) -> dict[str, Any] | None:
    """What was measured, on so many samples; None where nothing was, or the file is not as it was written."""
    try:
        gate = json.loads((folder / GATE).read_bytes())
        return gate if gate.pop("crc32c") == _sum(gate) and samples in (None, gate["samples"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sum(gate: dict[str, Any]) -> str:
    return f"{crc32c(json.dumps(gate).encode()):08x}"


def _why_unmeasured(config: TeacherConfig, teacher: Teacher, index: Index, samples: np.ndarray) -> str:
    if config.gate_samples == 0:
        return "teacher.gate_samples is 0"
    if not teacher.detects:
        return f"{config.weights} gives no boxes: {teacher.no_boxes}"
    if len(samples) == 0:
        return f"no sample of train or val of {index.version} has a box of a detection class to find"
    return ""


def _detect(
    teacher: Teacher, index: Index, dataroot: Path, samples: np.ndarray, sweeps: int, device: torch.device
) -> dict[int, Boxes]:
    found = {}
    with torch.inference_mode():
        for sample in progress(samples.tolist(), "teacher: check the weights", len(samples), "samples"):
            prepared = teacher.prepare(torch.from_numpy(load_points(index, dataroot, sample, sweeps)))
            _, boxes = teacher.run(prepared, device, boxes=True)
            assert boxes is not None  # they were asked for
            found[sample] = boxes
    return found


def _likely_reason(precisions: dict[str, float]) -> str:
    if max(precisions.values()) < NOTHING:
        return (
            "No class is found: most likely lidar.range or lidar.voxel_size is not the checkpoint's, the points differ "
            "(x points right, intensity goes to 255), or the weights were never trained"
        )
    if min(precisions.values()) < NOTHING:
        return (
            "Some classes are found and others not: most likely it was trained on fewer classes, or with another "
            "number of sweeps than lidar.sweeps"
        )
    return "All classes are found, but badly: most likely it was trained with another number of sweeps, or too little"
