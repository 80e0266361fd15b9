"""What of a dataroot is in ingest's key: the tables' bytes, and which files there are; never where it lies."""

import os
import shutil

import pytest

from dataroot.names import TABLES
from storage.digests import Digests
from tasks.engine.stage import CAMERA_SWEEPS
from tasks.ingest.config import IngestConfig
from tasks.ingest.digests import LIDAR_SWEEPS, SAMPLES, SIMULATED, dataroot_digests

CONFIG = IngestConfig(sweeps=2)
FRAMES = IngestConfig(sweeps=2, frames=1)


@pytest.fixture
def digests(tmp_path):
    """The digests of a world, asked anew each time."""

    def ask(world, config=CONFIG):
        return dataroot_digests(world.root, world.version, config, Digests(tmp_path / "no-memory"))

    return ask


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_what_there_is(world, digests, tmp_path):
    found = digests(world)
    assert found.keys() == {f"v1.0-mini/{table}.json" for table in TABLES} | {SAMPLES, LIDAR_SWEEPS}
    shutil.copytree(world.root, tmp_path / "moved")
    moved = type(world)(tmp_path / "moved")
    assert digests(moved) == found
    assert digests(world, FRAMES).keys() == found.keys() | {CAMERA_SWEEPS}
    assert digests(world, IngestConfig(sweeps=0)).keys() == found.keys() - {LIDAR_SWEEPS}


def test_a_missing_table_has_no_entry(world, digests):
    (world.root / world.version / "log.json").unlink()
    assert "v1.0-mini/log.json" not in digests(world)
    os.mkfifo(world.root / world.version / "log.json")
    assert "v1.0-mini/log.json" not in digests(world)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda w: (w.root / w.version / "scene.json").write_text("[]"), {"v1.0-mini/scene.json"}),
        (lambda w: (w.root / w.version / "splits.json").write_text("{}"), {"v1.0-mini/splits.json"}),
        (lambda w: (w.root / SIMULATED).write_text("{}"), {SIMULATED}),
        (lambda w: w.file_of("LIDAR_TOP").write_bytes(b"of another size"), {SAMPLES}),
        (lambda w: w.file_of("CAM_FRONT").unlink(), {SAMPLES}),
        (lambda w: w.file_of("CAM_FRONT").rename(w.file_of("CAM_FRONT").with_name("other.jpg")), {SAMPLES}),
        (lambda w: w.file_of("LIDAR_TOP", key=False).unlink(), {LIDAR_SWEEPS}),
    ],
    ids=["table", "splits", "simulator", "size", "gone", "renamed", "sweep"],
)
def test_what_makes_another_key(world, digests, change, moved):
    before = digests(world)
    change(world)
    assert changed(before, digests(world)) == moved


def test_what_no_stage_reads_makes_no_other_key(world, digests):
    before, frames = digests(world), digests(world, FRAMES)
    world.file_of("CAM_FRONT", key=False).unlink()
    (world.root / "samples" / "RADAR_FRONT" / "a.pcd").write_bytes(b"radar")
    (world.root / "notes.txt").write_text("mine")
    assert digests(world) == before
    assert changed(frames, digests(world, FRAMES)) == {CAMERA_SWEEPS}
