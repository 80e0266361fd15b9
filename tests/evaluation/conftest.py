"""The real key frame, a simulated val split, and that split with what the evaluation treats apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.index import Index, write_index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

REAL = Path(__file__).parents[3] / "shared" / "real-keyframe"
VERSION = "v1.0-mini"


def index_of(dataroot: Path, version: str, path: Path, classes: dict[str, str] | None = None) -> Index:
    arrays, attributes, _ = ingest(dataroot, version, IngestConfig(classes=classes or {}))
    write_index(path, arrays, attributes)
    return Index.open(path)


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip("shared/real-keyframe is not here")
    return index_of(REAL, VERSION, tmp_path_factory.mktemp("real") / "index.zarr")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> tuple[Index, Path]:
    folder = tmp_path_factory.mktemp("simulated")
    settings = SimulateConfig(keyframes=2, image_scale=0.08, lidar_rate=2, workers=1)
    simulate(settings, folder / "data", ("scene-0103", "scene-0916"))
    return index_of(folder / "data", VERSION, folder / "index.zarr"), folder / "data"


class Copy:
    """The simulated dataroot under another folder and version, with tables of its own to edit."""

    def __init__(self, simulated: Path, root: Path, version: str):
        self.root, self.version = root, version
        root.mkdir(parents=True)
        for name in ("samples", "sweeps", "maps"):
            (root / name).symlink_to(simulated / name)
        shutil.copytree(simulated / VERSION, root / version)

    def read(self, table: str) -> list[dict]:
        return json.loads((self.root / self.version / f"{table}.json").read_text())

    def write(self, table: str, value: object) -> None:
        (self.root / self.version / f"{table}.json").write_text(json.dumps(value))

    def index(self, classes: dict[str, str] | None = None) -> Index:
        return index_of(self.root, self.version, self.root / "index.zarr", classes)


@pytest.fixture
def copy(simulated, tmp_path):
    """Make a Copy of a version."""
    return lambda version: Copy(simulated[1], tmp_path / version, version)


@pytest.fixture(scope="session")
def odd(simulated, tmp_path_factory) -> tuple[Index, Path]:
    """Boxes without points, boxes without an attribute, and bicycle racks around some bicycles."""
    made = Copy(simulated[1], tmp_path_factory.mktemp("odd") / "data", VERSION)
    random = np.random.default_rng(0)
    made.write("category", [*made.read("category"), {"token": "rack", "name": "static_object.bicycle_rack"}])
    names = {c["token"]: c["name"] for c in made.read("category")}
    category = {i["token"]: names[i["category_token"]] for i in made.read("instance")}
    boxes, racks = made.read("sample_annotation"), []
    for box in boxes:
        if random.random() < 0.1:
            box["num_lidar_pts"] = box["num_radar_pts"] = 0
        if random.random() < 0.2:
            box["attribute_tokens"] = []
        name = category[box["instance_token"]]
        if name in ("vehicle.bicycle", "vehicle.motorcycle") and random.random() < 0.5:
            x, y, z = box["translation"]
            where = {"translation": [x + 0.5, y + 0.3, z], "size": [2.0, 4.0, 2.0]}
            alone = {"instance_token": "racks", "attribute_tokens": [], "prev": "", "next": ""}
            racks.append(box | where | alone | {"token": f"rack-{len(racks)}"})
    assert racks
    made.write("sample_annotation", boxes + racks)
    instance = {"token": "racks", "category_token": "rack"}
    made.write("instance", [*made.read("instance"), instance])
    return made.index(), made.root
