"""A small dataroot's index and LiDAR files: boxes that are clouds of points, no images."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.names import CAMERAS, CLASSES
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index
from tasks.teacher.config import FitConfig, LidarConfig

SAMPLES, VAL = 6, 1  # the last is val


@dataclass
class World:
    dataroot: Path
    index: Index
    inputs: object


@pytest.fixture
def world(tmp_path) -> World:
    random = np.random.default_rng(0)
    sizes = {"sample": SAMPLES, "scene": 1, "sweep": 2, "camera": 6, "frame": 0, "sample_edge": SAMPLES + 1}
    sizes |= {"box": 2 * SAMPLES} | FIXED
    arrays = {
        name: np.full([sizes[d] for d in dims], "" if dtype == "str" else 0, object if dtype == "str" else dtype)
        for name, (dtype, dims) in SCHEMA.items()
    }
    arrays["token"][:] = [f"sample{i}" for i in range(SAMPLES)]
    arrays["split"][:] = ["train"] * (SAMPLES - VAL) + ["val"] * VAL
    arrays["lidar_timestamp"][:] = 10**6 + np.arange(SAMPLES) * 500_000
    arrays["sweep_timestamp"][:] = arrays["lidar_timestamp"][:, None] - [50_000, 100_000]
    arrays["sweep_count"][:] = [0, 1, 2, 2, 2, 2]
    arrays["lidar_to_ego"][:] = arrays["lidar_ego_to_global"][:] = np.eye(4)
    shift = np.eye(4)
    shift[:3, 3] = [0.5, 0, 0]
    arrays["sweep_to_lidar"][:] = [shift, shift @ shift]
    arrays["box_offsets"][:] = 2 * np.arange(SAMPLES + 1)
    arrays["box_center"][:] = random.uniform([-6, -5, -1], [6, 5, 0], (2 * SAMPLES, 3))
    arrays["box_size"][:] = [4.0, 2.0, 1.5]
    arrays["box_velocity"][:] = np.nan
    arrays["box_lidar_points"][:] = 100
    arrays["box_label"][:] = np.where(np.arange(2 * SAMPLES) < 2 * (SAMPLES - VAL), 0, -1)  # val: none that counts
    (tmp_path / "data").mkdir()
    for s in range(SAMPLES):
        points = random.uniform([-8, -6.4, -2, 0, 0], [8, 6.4, -1.9, 255, 31], (500, 5))
        inside = np.concatenate(
            [c + random.uniform(-0.7, 0.7, (100, 3)) for c in arrays["box_center"][2 * s : 2 * s + 2]]
        )
        points[:200, :3] = inside
        for name in (f"{s}.bin", f"{s}.0.bin", f"{s}.1.bin"):
            points.astype(np.float32).tofile(tmp_path / "data" / name)
        arrays["lidar_path"][s] = f"{s}.bin"
        arrays["sweep_path"][s] = [f"{s}.0.bin", f"{s}.1.bin"]
    write_index(tmp_path / "ingest" / "index.zarr", arrays, IndexAttributes("v1.0-mini", CAMERAS, CLASSES))
    ingest = SimpleNamespace(path=tmp_path / "ingest")
    inputs = Inputs(tmp_path / "data", {"ingest": ingest})
    return World(tmp_path / "data", Index.open(tmp_path / "ingest" / "index.zarr"), inputs)


class Inputs(dict):
    def __init__(self, dataroot: Path, artifacts: dict):
        super().__init__(artifacts)
        self.dataroot = dataroot


class Folder:
    """An artifact's folder, as a stage sees it."""

    def __init__(self, path: Path):
        self.path = path
        self.path.mkdir(parents=True)
        self.progress = (0, 0)

    def write_progress(self, done: int, total: int) -> None:
        self.progress = (done, total)


@pytest.fixture
def folder(tmp_path):
    return lambda name: Folder(tmp_path / name)


SMALL = LidarConfig(
    range=(-8, -6.4, -4, 8, 6.4, 4),
    voxel_size=(0.2, 0.2, 0.25),
    sweeps=1,
    widths=(4, 4, 8, 8),
    out_width=8,
    blocks=1,
)
FIT = FitConfig(
    lidar=SMALL,
    backbone_widths=(8, 8),
    backbone_layers=(1, 1),
    neck_width=8,
    class_groups="one",
    head_width=8,
    epochs=4,
    batch_size=2,
    warmup=2,
    threads=1,
    seconds_between_saves=1e-9,
)


@pytest.fixture
def small() -> LidarConfig:
    return SMALL


@pytest.fixture
def small_fit() -> FitConfig:
    return FIT
