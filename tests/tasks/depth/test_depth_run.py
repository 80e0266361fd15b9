"""The depth stage on a small invented index: through worker processes, through `kill -9`, and on real data."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from children import children_with
from common.errors import UserError
from driver import wait_for
from in_parts import run_whole
from models.geometry import inverse, rotation_z, transform
from models.names import CAMERAS, CLASSES
from storage.depth import DepthReader
from storage.index import FIXED, SCHEMA, IndexAttributes, write_index
from storage.parts import count_done
from tasks.depth import run as stage
from tasks.depth.config import DepthConfig
from tasks.depth.project import Rig, project_sample

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT.parent / "shared" / "real-keyframe"
SAMPLES, SWEEPS = 7, 3


@dataclass
class Place:
    path: Path


@dataclass
class Inputs:
    dataroot: Path
    ingest: Place

    def __getitem__(self, name: str) -> Place:
        return {"ingest": self.ingest}[name]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    """Samples with 0 to 3 sweeps of 500 points, and six small cameras in a ring."""
    root = tmp_path_factory.mktemp("dataroot")
    rng = np.random.default_rng(0)
    sizes = FIXED | {"sample": SAMPLES, "sample_edge": SAMPLES + 1, "scene": 1, "camera": 6, "sweep": SWEEPS}
    sizes |= {"frame": 0, "box": 0}
    arrays = {
        name: np.zeros([sizes[d] for d in dims], dtype)
        if dtype != "str"
        else np.full([sizes[d] for d in dims], "", object)
        for name, (dtype, dims) in SCHEMA.items()
    }
    forward = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # a camera's axes in the ego's
    turns = rotation_z(np.arange(6) * np.pi / 3)
    for s in range(SAMPLES):
        arrays["token"][s] = f"sample{s}"
        arrays["lidar_to_ego"][s] = transform(rotation_z(rng.uniform(0, 6)), np.array([0.9, 0, 1.8]))
        arrays["lidar_ego_to_global"][s] = transform(rotation_z(rng.uniform(0, 6)), rng.normal(scale=100, size=3))
        arrays["camera_to_ego"][s] = transform(turns @ forward, np.array([1.0, 0, 1.5]))
        moved = transform(rotation_z(0.01), rng.normal(scale=0.3, size=3))
        arrays["camera_ego_to_global"][s] = arrays["lidar_ego_to_global"][s] @ moved
        arrays["intrinsics"][s] = [[40.0, 0, 32], [0, 40, 16], [0, 0, 1]]
        arrays["image_size"][s] = [64, 32]
        arrays["camera_path"][s] = "image.jpg"
        arrays["sweep_count"][s] = s % (SWEEPS + 1)
        arrays["sweep_to_lidar"][s] = transform(
            rotation_z(rng.normal(scale=0.1, size=SWEEPS)), rng.normal(size=(SWEEPS, 3))
        )
        arrays["lidar_path"][s] = f"{s}.bin"
        arrays["sweep_path"][s] = [f"{s}-{k}.bin" if k < s % (SWEEPS + 1) else "" for k in range(SWEEPS)]
        for name in {arrays["lidar_path"][s], *arrays["sweep_path"][s]} - {""}:
            rng.normal(scale=(15, 15, 2, 9, 9), size=(500, 5)).astype(np.float32).tofile(root / name)
    Image.new("RGB", (64, 32), (90, 90, 90)).save(root / "image.jpg")
    write_index(root / "ingest" / "index.zarr", arrays, IndexAttributes("v1.0-mini", CAMERAS, CLASSES))
    return Inputs(root, Place(root / "ingest"))


CONFIG = DepthConfig(sweeps=2, part=2, workers=1)


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    run_whole(stage, CONFIG, inputs, Place(path))
    return path


def test_points_are_the_projections(inputs, whole):
    from storage.index import Index

    index = Index.open(inputs.ingest.path / "index.zarr")
    reader = DepthReader(whole / "depth.zarr")
    assert (len(reader), reader.cameras, reader.sweeps) == (SAMPLES, CAMERAS, 2)
    for s in range(SAMPLES):
        count = min(2, int(index.sweep_count[s]))
        global_to_camera = inverse(index.camera_ego_to_global[s] @ index.camera_to_ego[s])
        key = global_to_camera @ index.lidar_ego_to_global[s] @ index.lidar_to_ego[s]
        paths = [index.lidar_path[s], *index.sweep_path[s, :count]]
        expected = project_sample(
            [np.fromfile(inputs.dataroot / p, np.float32).reshape(-1, 5) for p in paths],
            np.stack([key, *(key @ index.sweep_to_lidar[s, k] for k in range(count))]),
            Rig(index.intrinsics[s], index.image_size[s]),
            1.0,
            1.0,
        )
        found = reader.read(s)
        assert set(found.sweep) == set(range(count + 1))
        for name in ("u", "v", "depth", "sweep", "offsets"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)


def test_the_picture_is_there(whole):
    with Image.open(whole / "depth.png") as picture:
        assert picture.width == 2400


def test_worker_processes_write_the_same(inputs, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CLOUDS_PER_WORKER", 1)
    run_whole(stage, CONFIG.model_copy(update={"workers": 2}), inputs, Place(tmp_path))
    assert files(tmp_path / "depth.zarr") == files(whole / "depth.zarr")


def test_a_worker_that_was_killed_is_one_sentence(inputs, tmp_path, monkeypatch):
    """As where memory is short."""
    monkeypatch.setattr(stage, "CLOUDS_PER_WORKER", 1)
    killer = threading.Thread(target=lambda: wait_for(lambda: children_with("spawn_main"))[0].kill())
    killer.start()
    with pytest.raises(UserError, match=r"^depth: one of its processes was killed, .*; set depth\.workers lower"):
        run_whole(stage, CONFIG.model_copy(update={"workers": 2}), inputs, Place(tmp_path))
    killer.join()


PATH = [str(ROOT), str(Path(__file__).parent), str(ROOT / "tests/support")]
SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_depth_run import CONFIG, Inputs, Place, run_whole, stage

def project_part(jobs, real=stage.project_part):
    time.sleep({seconds})
    return real(jobs)

stage.project_part = project_part
if __name__ == "__main__":
    root = Path(sys.argv[1])
    run_whole(stage, CONFIG, Inputs(root, Place(root / "ingest")), Place(Path(sys.argv[2])))
"""


def test_kill_9_and_run_again(inputs, whole, tmp_path):
    script = tmp_path / "go.py"
    script.write_text(SCRIPT.format(path=PATH, seconds=0.1))
    out = tmp_path / "artifact"
    out.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(inputs.dataroot), str(out)])
    deadline = time.monotonic() + 60
    while (count_done(out / "depth.zarr") or (0, 4))[0] < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None
    process.kill()
    process.wait()
    done, total = count_done(out / "depth.zarr")
    assert 2 <= done < total == 4
    run_whole(stage, CONFIG, inputs, Place(out))
    assert files(out / "depth.zarr") == files(whole / "depth.zarr")


def test_workers_end_with_the_stage_that_is_killed(inputs, tmp_path):
    """A worker must not outlive a stage that is killed with -9. While it works, it does so with one thread."""
    import os

    script = tmp_path / "go.py"
    text = SCRIPT.format(path=PATH, seconds=60)
    script.write_text(text.replace("if __name__", "stage._workers = lambda *_: 2\nif __name__"))
    out = tmp_path / "artifact"
    out.mkdir()
    command = [sys.executable, str(script), str(inputs.dataroot), str(out)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "8"})
    deadline = time.monotonic() + 60
    children: list[psutil.Process] = []
    while len(children) < 3 and time.monotonic() < deadline:  # two workers and multiprocessing's resource tracker
        time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
    time.sleep(2.0)
    assert process.poll() is None
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert [worker.environ()["OMP_NUM_THREADS"] for worker in workers] == ["1", "1"]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert len(children) >= 3
    assert not alive


@pytest.mark.skipif(not REAL.is_dir(), reason="the real key frame is not beside the repository")
def test_the_real_key_frame(tmp_path):
    from storage.index import write_index
    from tasks.ingest.config import IngestConfig
    from tasks.ingest.run import ingest

    arrays, attributes, _ = ingest(REAL, "v1.0-mini", IngestConfig())
    write_index(tmp_path / "ingest" / "index.zarr", arrays, attributes)
    summary = run_whole(stage, DepthConfig(), Inputs(REAL, Place(tmp_path / "ingest")), Place(tmp_path))
    assert summary["points_in_images"] == 22103
    counts = DepthReader(tmp_path / "depth.zarr").counts()[0]
    assert counts.tolist() == [3053, 3076, 3696, 4820, 4089, 3369]
