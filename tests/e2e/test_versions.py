"""Golden numbers of every stage, tied to its VERSION: another result under the same version is red.

They are read from the tiny world's artifacts. RELATIVE is four times what they differ by between a processor's widest
vector instructions and its oldest.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.artifact import Artifact
from storage.depth import DepthReader
from storage.index import Index
from tasks.simulate.config import VERSION as SIMULATOR
from tasks.stage import STAGES

RELATIVE = 2e-3

# Stage -> its VERSION when these were its numbers.
GOLDEN = {
    "simulate": (1, {"boxes": 436, "size": 2.52973, "points": 32515, "extent": 10.586}),
    "ingest": (3, {"boxes": 436, "centres": 7.76994, "speed": 1.0931, "poses": 11.588, "sweeps": 0.0235852}),
    "fit": (3, {"steps": 8, "first loss": 15.2382, "last loss": 11.6543}),
    "teacher": (3, {"active": 0.401167, "values": 22.9037}),
    "depth": (2, {"points": 685702, "depth": 13.4822}),
    "pretrain": (3, {"steps": 6, "first loss": 1.1928, "last loss": 1.23118}),
    "finetune": (4, {"steps": 4, "first loss": 26.1484, "last loss": 21.721}),
    "evaluate": (1, {"boxes": 1992, "score": 0.10225}),
}


def log_of(artifact: Artifact) -> dict[str, float]:
    """The loss of the first step and of the last."""
    (file,) = artifact.path.rglob("metrics.jsonl")
    losses = [line["loss"] for line in map(json.loads, file.read_text().splitlines()) if "loss" in line]
    return {"steps": len(losses), "first loss": losses[0], "last loss": losses[-1]}


def simulated(world, artifacts) -> dict[str, float]:
    boxes = json.loads((world / "v1.0-mini" / "sample_annotation.json").read_text())
    sizes = np.array([box["size"] for box in boxes])
    cloud = np.fromfile(min((world / "samples" / "LIDAR_TOP").iterdir()), np.float32)
    return {"boxes": len(sizes), "size": sizes.mean(), "points": len(cloud) // 5, "extent": np.abs(cloud).mean()}


def ingested(world, artifacts) -> dict[str, float]:
    index = Index.open(artifacts["ingest"].path / "index.zarr")
    velocity = index.box_velocity[~np.isnan(index.box_velocity)]
    return {
        "boxes": len(index.box_label),
        "centres": np.abs(index.box_center).mean(),
        "speed": np.abs(velocity).mean(),
        "poses": np.abs(index.camera_ego_to_global).mean(),
        "sweeps": np.abs(np.nan_to_num(index.sweep_to_lidar)).mean(),
    }


def fitted(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["fit"])


def taught(world, artifacts) -> dict[str, float]:
    group = zarr.open_group(artifacts["teacher"].path / "bev.zarr", mode="r")
    return {
        "active": group["active"][...].mean(),
        "values": np.abs(group["value"][...].astype(float)).sum() / group["active"][...].sum(),
    }


def projected(world, artifacts) -> dict[str, float]:
    reader = DepthReader(artifacts["depth"].path / "depth.zarr")
    points = [reader.read(sample) for sample in range(len(reader))]
    return {"points": sum(len(p.u) for p in points), "depth": np.concatenate([p.depth for p in points]).mean()}


def pretrained(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["pretrain"])


def finetuned(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["finetune-scratch"])


def evaluated(world, artifacts) -> dict[str, float]:
    content = json.loads((artifacts["evaluate-scratch"].path / "results_nusc.json").read_text())["results"]
    boxes = [box for found in content.values() for box in found]
    return {"boxes": len(boxes), "score": float(np.mean([box["detection_score"] for box in boxes]))}


NUMBERS = {
    "simulate": simulated,
    "ingest": ingested,
    "fit": fitted,
    "teacher": taught,
    "depth": projected,
    "pretrain": pretrained,
    "finetune": finetuned,
    "evaluate": evaluated,
}


def test_every_stage_has_golden_numbers():
    assert NUMBERS.keys() == GOLDEN.keys() == {"simulate", *STAGES}


@pytest.mark.parametrize("stage", NUMBERS)
def test_a_stage_that_makes_other_numbers_has_another_version(world, finished, stage):
    cli, _ = finished
    rows = cli.status()
    artifacts = {name: Artifact(cli.root, Path(row["path"]).parent.name, row["key"]) for name, row in rows.items()}
    found = {name: float(f"{value:.6g}") for name, value in NUMBERS[stage](world, artifacts).items()}
    version = SIMULATOR if stage == "simulate" else STAGES[stage].version
    golden_version, golden = GOLDEN[stage]
    if found != pytest.approx(golden, rel=RELATIVE):
        assert version != golden_version, (
            f"{stage} makes other numbers than it did, so its artifacts need other keys: raise its VERSION (or that of "
            f"the stage it reads, if that changed), and write here ({version + 1}, {found})"
        )
    assert (golden_version, golden) == (version, pytest.approx(found, rel=RELATIVE)), f"write here ({version}, {found})"
