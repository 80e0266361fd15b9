"""A tiny dataset in nuScenes format: two scenes of three key frames, with sweeps and camera frames between them."""

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.names import CAMERAS, LIDAR
from simulate.config import SimulateConfig
from simulate.write import simulate

VERSION = "v1.0-mini"
START = 1_532_402_927_000_000  # us
READINGS = 5  # of every sensor and scene; every second one is a key frame
STEP = 250_000  # us between them


class World:
    """A dataroot to look at and to damage."""

    def __init__(self, root: Path):
        self.root, self.version = root, VERSION

    def table(self, name: str) -> list[dict]:
        return json.loads((self.root / VERSION / f"{name}.json").read_text())

    def write(self, name: str, rows: object) -> None:
        (self.root / VERSION / f"{name}.json").write_text(json.dumps(rows))

    def edit(self, name: str, change: Callable[[list[dict]], object]) -> None:
        """Load a table, let `change` damage its rows in place, write it back."""
        rows = self.table(name)
        change(rows)
        self.write(name, rows)

    def file_of(self, channel: str, key: bool = True) -> Path:
        """The first key frame's (or the first other reading's) file of a sensor."""
        return next(
            self.root / row["filename"]
            for row in self.table("sample_data")
            if f"/{channel}/" in row["filename"] and row["is_key_frame"] == key
        )


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> World:
    """The undamaged dataset; not to be written to."""
    root = tmp_path_factory.mktemp("nuscenes")
    _make(root)
    return World(root)


@pytest.fixture
def world(pristine, tmp_path) -> World:
    """A copy of it to damage."""
    shutil.copytree(pristine.root, tmp_path / "world")
    return World(tmp_path / "world")


def _make(root: Path) -> None:
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict]] = {
        "visibility": [{"token": str(level), "level": ""} for level in (1, 2, 3, 4)],
        "attribute": [{"token": "att0", "name": "vehicle.moving"}, {"token": "att1", "name": "pedestrian.standing"}],
        "category": [
            {"token": "cat0", "name": "vehicle.car"},
            {"token": "cat1", "name": "human.pedestrian.adult"},
            {"token": "cat2", "name": "animal"},
        ],
        "log": [{"token": "log0", "location": "simulated-town"}],
        "map": [{"token": "map0", "log_tokens": ["log0"], "filename": "maps/map0.png"}],
        "sensor": [],
        "calibrated_sensor": [],
        "ego_pose": [],
        "scene": [],
        "sample": [],
        "sample_data": [],
        "instance": [],
        "sample_annotation": [],
    }
    for channel in (*CAMERAS, LIDAR, "RADAR_FRONT"):
        modality = {"C": "camera", "L": "lidar", "R": "radar"}[channel[0]]
        tables["sensor"].append({"token": f"sensor-{channel}", "channel": channel, "modality": modality})
        translation, (w, x, y, z) = rng.normal(size=3), rng.normal(size=4)
        rotation = [-x, w, z, -y] if channel == LIDAR else [w, x, y, z]  # turned over: its z axis points up
        tables["calibrated_sensor"].append(
            {
                "token": f"calibration-{channel}",
                "sensor_token": f"sensor-{channel}",
                "translation": translation.tolist(),
                "rotation": _unit(np.array(rotation)),
                "camera_intrinsic": [[20.0, 0, 16], [0, 20.0, 8], [0, 0, 1]] if modality == "camera" else [],
            }
        )
    for number, name in enumerate(("scene-0103", "scene-0061")):
        _make_scene(tables, number, name, rng)
    for name, rows in tables.items():
        (root / VERSION).mkdir(exist_ok=True)
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows))
    image = io.BytesIO()
    Image.new("RGB", (32, 16), (90, 120, 60)).save(image, "JPEG")
    for row in tables["sample_data"]:
        path = root / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        points = rng.normal(scale=20, size=(40, 5)).astype(np.float32)
        path.write_bytes(image.getvalue() if path.suffix == ".jpg" else points.tobytes())
    (root / "maps").mkdir()
    Image.new("L", (8, 8), 255).save(root / "maps" / "map0.png")


def _make_scene(tables: dict[str, list[dict]], number: int, name: str, rng: np.random.Generator) -> None:
    start = START + number * 60_000_000
    samples = [f"sample-{number}-{k}" for k in range(0, READINGS, 2)]
    tables["scene"].append({"token": f"scene-token-{number}", "name": name, "log_token": "log0"})
    for k, token in enumerate(samples):
        row = {"token": token, "timestamp": start + 2 * k * STEP, "scene_token": f"scene-token-{number}"}
        tables["sample"].append(row | _chain(samples, k))
    for channel in (*CAMERAS, LIDAR, "RADAR_FRONT"):
        tokens = [f"{channel}-{number}-{k}" for k in range(READINGS)]
        camera = channel.startswith("CAM")
        for k, token in enumerate(tokens):
            heading = rng.uniform(0, 2 * math.pi)
            tilt = rng.normal(scale=0.01, size=2)
            tables["ego_pose"].append(
                {
                    "token": f"pose-{token}",
                    "translation": [300.0 + 5 * k, 900.0 + number, 0.0],
                    "rotation": _unit(np.array([math.cos(heading), *tilt, math.sin(heading)])),
                }
            )
            folder = "samples" if k % 2 == 0 else "sweeps"
            tables["sample_data"].append(
                {
                    "token": token,
                    "sample_token": samples[(k + 1) // 2],
                    "ego_pose_token": f"pose-{token}",
                    "calibrated_sensor_token": f"calibration-{channel}",
                    "timestamp": start + k * STEP,
                    "is_key_frame": k % 2 == 0,
                    "height": 16 if camera else 0,
                    "width": 32 if camera else 0,
                    "fileformat": "jpg" if camera else "pcd",
                    "filename": f"{folder}/{channel}/{number}-{k}" + (".jpg" if camera else ".pcd.bin"),
                }
                | _chain(tokens, k)
            )
    # A car in all samples, a pedestrian in the first two, an animal in one.
    for thing, (category, count, attributes) in enumerate(
        (("cat0", 3, ["att0"]), ("cat1", 2, ["att1"]), ("cat2", 1, []))
    ):
        tokens = [f"box-{number}-{thing}-{k}" for k in range(count)]
        tables["instance"].append({"token": f"instance-{number}-{thing}", "category_token": category})
        for k, token in enumerate(tokens):
            heading = rng.uniform(0, 2 * math.pi)
            tables["sample_annotation"].append(
                {
                    "token": token,
                    "sample_token": samples[k],
                    "instance_token": f"instance-{number}-{thing}",
                    "visibility_token": "3",
                    "attribute_tokens": attributes,
                    "translation": rng.normal((300, 900, 0), 10).tolist(),
                    "size": rng.uniform(0.5, 4, size=3).tolist(),
                    "rotation": [math.cos(heading / 2), 0, 0, math.sin(heading / 2)],
                    "num_lidar_pts": 5 + k,
                    "num_radar_pts": thing,
                }
                | _chain(tokens, k)
            )


def _chain(tokens: list[str], k: int) -> dict[str, str]:
    return {"prev": tokens[k - 1] if k else "", "next": tokens[k + 1] if k + 1 < len(tokens) else ""}


def _unit(quaternion: np.ndarray) -> list[float]:
    return (quaternion / np.linalg.norm(quaternion)).tolist()


@pytest.fixture(scope="session")
def driven(tmp_path_factory) -> World:
    """Two simulated scenes of four key frames, with a sweep between two of them; not to be written to."""
    root = tmp_path_factory.mktemp("driven")
    settings = SimulateConfig(keyframes=4, image_scale=0.05, lidar_rate=4, workers=1)
    simulate(settings, root / "data", ("scene-0103", "scene-0061"))
    return World(root / "data")


@pytest.fixture
def drive(driven, tmp_path) -> World:
    """The simulated scenes with tables to edit, and links to their files."""
    root = tmp_path / "drive"
    shutil.copytree(driven.root / VERSION, root / VERSION)
    for name in ("samples", "sweeps", "maps"):
        (root / name).symlink_to(driven.root / name)
    return World(root)
