"""Golden numbers of every stage, tied to its VERSION: another result under the same version is red.

They are read from the tiny world's artifacts. RELATIVE is four times what they differ by at most between a processor's
widest vector instructions and its oldest.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simulate.config import VERSION as SIMULATOR
from storage.artifact import Artifact
from storage.bev import BevReader
from storage.depth import DepthReader
from storage.index import Index
from tasks.engine.stage import STAGES

RELATIVE = 3e-3
# Of what weights make that eight steps on another kind of CPU led elsewhere: 0.4 % without AVX2.
OF_TRAINED = {"teacher": 2e-2}

# Stage -> its VERSION when these were its numbers.
GOLDEN = {
    "simulate": (
        2,
        {"boxes": 436, "size": 1.23079, "place": 46.8728, "points": 32515, "xyz": -0.1683, "pixels": 24.3655},
    ),
    "ingest": (
        3,
        {
            "boxes": 436,
            "center": -8.20628,
            "size": 1.50872,
            "yaw": 1.22869,
            "velocity": -2.43641,
            "label": -1.04513,
            "camera_to_ego, turn": 0.162729,
            "camera_ego_to_global, turn": -0.0609194,
            "sweep_to_lidar, turn": -0.0785133,
            "camera_to_ego, move": 0.413605,
            "camera_ego_to_global, move": 167.184,
            "sweep_to_lidar, move": 0.0889554,
            "intrinsics": -72.7743,
        },
    ),
    "fit": (4, {"steps": 8, "first loss": 16.2756, "last loss": 11.0467}),
    "teacher": (3, {"mean": 0.567867, "rms": 2.91294, "active": 0.399833}),
    "depth": (2, {"points": 685702, "u": 238.481, "v": 184.517, "depth": 47.7498, "sweep": 1.56076}),
    "pretrain": (5, {"steps": 6, "first loss": 1.11826, "last loss": 1.15679}),
    "finetune": (6, {"steps": 4, "first loss": 25.7277, "last loss": 22.7995}),
    "evaluate": (
        2,
        {"boxes": 1432, "score": 143.889, "place": 110980, "size": 1170.83, "turn": 477.513, "velocity": 369.355},
    ),
}


def log_of(artifact: Artifact) -> dict[str, float]:
    """The loss of the first step and of the last."""
    (file,) = artifact.path.rglob("metrics.jsonl")
    losses = [line["loss"] for line in map(json.loads, file.read_text().splitlines()) if "loss" in line]
    return {"steps": len(losses), "first loss": losses[0], "last loss": losses[-1]}


def mark(values) -> float:
    """One number of an array's own size that moves with its mean, and with the place and sign of every value."""
    values = np.nan_to_num(np.asarray(values, np.float64)).ravel()
    noise = np.random.RandomState(0).standard_normal(values.size)  # the same in every NumPy
    return values.mean() + values @ noise / np.sqrt(values.size)


def simulated(world, artifacts) -> dict[str, float]:
    boxes = json.loads((world / "v1.0-mini" / "sample_annotation.json").read_text())
    cloud = np.fromfile(min((world / "samples" / "LIDAR_TOP").iterdir()), np.float32).reshape(-1, 5)
    image = np.asarray(Image.open(min((world / "samples" / "CAM_FRONT").iterdir())))
    return {
        "boxes": len(boxes),
        "size": mark([box["size"] for box in boxes]),
        "place": mark([box["translation"] for box in boxes]),
        "points": len(cloud),
        "xyz": mark(cloud[:, :3]),
        "pixels": mark(image),
    }


def ingested(world, artifacts) -> dict[str, float]:
    index = Index.open(artifacts["ingest"].path / "index.zarr")
    boxes = {name: mark(getattr(index, f"box_{name}")) for name in ("center", "size", "yaw", "velocity", "label")}
    poses = {name: getattr(index, name) for name in ("camera_to_ego", "camera_ego_to_global", "sweep_to_lidar")}
    turns = {f"{name}, turn": mark(pose[..., :3, :3]) for name, pose in poses.items()}
    moves = {f"{name}, move": mark(pose[..., :3, 3]) for name, pose in poses.items()}
    intrinsics = mark(index.intrinsics)
    return {"boxes": len(index.box_label), **boxes, **turns, **moves, "intrinsics": intrinsics}


def fitted(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["fit"])


def taught(world, artifacts) -> dict[str, float]:
    reader = BevReader(artifacts["teacher"].path / "bev.zarr")
    maps = np.stack([reader.dense(sample) for sample in range(len(reader))]).astype(np.float64)
    return {"mean": maps.mean(), "rms": np.sqrt((maps**2).mean()), "active": (maps != 0).any(1).mean()}


def projected(world, artifacts) -> dict[str, float]:
    reader = DepthReader(artifacts["depth"].path / "depth.zarr")
    points = [reader.read(sample) for sample in range(len(reader))]
    arrays = {name: np.concatenate([getattr(p, name) for p in points]) for name in ("u", "v", "depth", "sweep")}
    return {"points": len(arrays["u"]), **{name: mark(values) for name, values in arrays.items()}}


def pretrained(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["pretrain"])


def finetuned(world, artifacts) -> dict[str, float]:
    return log_of(artifacts["finetune-baseline"])


def evaluated(world, artifacts) -> dict[str, float]:
    """Of a class's boxes the sums, in which their order, that a tie of scores decides, makes no difference."""
    content = json.loads((artifacts["evaluate-baseline"].path / "results_nusc.json").read_text())["results"]
    boxes = [box for token in sorted(content) for box in content[token]]
    classes = sorted({box["detection_name"] for box in boxes})

    def total(field: str) -> float:
        values = [[np.atleast_1d(b[field]) for b in boxes if b["detection_name"] == name] for name in classes]
        return mark([np.sum(of_class, axis=0) for of_class in values])

    fields = {"score": "detection_score", "place": "translation", "size": "size", "turn": "rotation"}
    fields |= {"velocity": "velocity"}
    return {"boxes": len(boxes), **{name: total(field) for name, field in fields.items()}}


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
    if found != pytest.approx(golden, rel=OF_TRAINED.get(stage, RELATIVE)):
        assert version != golden_version, (
            f"{stage} makes other numbers than it did, so its artifacts need other keys: raise its VERSION (or that of "
            f"the stage it reads, if that changed), and write here ({version + 1}, {found})"
        )
    assert (golden_version, golden) == (version, pytest.approx(found, rel=RELATIVE)), f"write here ({version}, {found})"
