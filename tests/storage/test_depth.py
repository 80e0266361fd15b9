"""depth.zarr: what is written is read, a kill costs one part at most, and a loss is never read as data."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import atomic, part_store
from storage import depth as depth_module
from storage.damage import Damaged
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.parts import count_done

CAMERAS = ("left", "right")
DOCS = Path(__file__).parents[2] / "docs" / "artifacts.md"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks so small that a camera fills several of them."""
    monkeypatch.setattr(depth_module, "SLOTS", 8)


def sample_points(rng: np.random.Generator, counts: tuple[int, int]) -> SamplePoints:
    n = sum(counts)
    u, v, depth = rng.uniform(1, 50, (3, n)).astype(np.float32)
    sweep = rng.integers(0, 3, n).astype(np.uint8)
    return SamplePoints(u, v, depth, sweep, np.cumsum([0, *counts]))


def some_points(counts) -> list[SamplePoints]:
    rng = np.random.default_rng(0)
    return [sample_points(rng, c) for c in counts]


def open_writer(path: Path, points: list[SamplePoints], part_samples: int = 2) -> DepthWriter:
    return DepthWriter(path, [f"t{i}" for i in range(len(points))], CAMERAS, 2, part_samples, most=44)


def write_all(path: Path, points: list[SamplePoints], part_samples: int = 2, stop: int | None = None) -> None:
    writer = open_writer(path, points, part_samples)
    for part in writer.parts.pending():
        if stop is None or part < stop:
            writer.write(part, [points[s] for s in writer.samples(part)])


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def check(path: Path, points: list[SamplePoints]) -> None:
    reader = DepthReader(path)
    assert len(reader) == len(points)
    assert reader.cameras == CAMERAS
    np.testing.assert_array_equal(reader.counts(), [np.diff(p.offsets) for p in points])
    for s, expected in enumerate(points):
        found = reader.read(s)
        for name in ("u", "v", "depth", "sweep", "offsets"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            assert name == "offsets" or getattr(found, name).dtype == getattr(expected, name).dtype


@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    part_samples=st.integers(1, 4),
)
def test_what_is_written_is_read(tmp_path_factory, counts, part_samples):
    path = tmp_path_factory.mktemp("store") / "depth.zarr"
    points = some_points(counts)
    write_all(path, points, part_samples)
    check(path, points)


COUNTS = [(20, 11), (0, 0), (40, 7), (5, 1), (0, 30)]


def test_plain_zarr_reads_it(tmp_path):
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    group = zarr.open_group(str(tmp_path / "depth.zarr"), mode="r")
    assert group.attrs["cameras"] == list(CAMERAS)
    assert group["u"].metadata.dimension_names == ("sample", "camera", "slot")
    np.testing.assert_array_equal(group["count"][:], COUNTS)
    assert list(group["token"][:]) == [f"t{i}" for i in range(len(COUNTS))]
    assert group["done"][:].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(group["depth"][2, 1, : COUNTS[2][1]], points[2].depth[40:])


def test_the_recipe_of_the_docs(tmp_path):
    points = some_points([(3, 0), (9, 30), (0, 0)])
    write_all(tmp_path / "depth.zarr", points)
    text = DOCS.read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "depth.zarr" in b]
    block = re.sub(r'"artifacts/depth/.*?/depth.zarr"', "path", block)
    for sample in range(3):
        for camera in range(2):
            found = {"path": str(tmp_path / "depth.zarr"), "sample": sample, "camera": camera}
            exec(block, found)
            for name, expected in zip(("u", "v", "depth"), points[sample].camera(camera), strict=True):
                np.testing.assert_array_equal(found[name], expected)


def test_a_camera_takes_its_sweeps(tmp_path):
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    read = DepthReader(tmp_path / "depth.zarr").read(2)
    kept = points[2].sweep[:40] <= 1
    for found, whole in zip(read.camera(0, sweeps=1), (points[2].u, points[2].v, points[2].depth), strict=True):
        np.testing.assert_array_equal(found, whole[:40][kept])
    assert len(read.camera(0)[0]) == 40


class Killed(Exception):
    pass


@pytest.mark.parametrize("part", [1, 2])
def test_a_kill_between_any_two_files_changes_nothing(tmp_path, monkeypatch, part):
    """Stop before the 1st, 2nd ... file of a part takes its place, run again, compare every byte."""
    points = some_points(COUNTS)
    write_all(tmp_path / "whole.zarr", points)
    whole = files(tmp_path / "whole.zarr")
    write_all(tmp_path / "begun.zarr", points, stop=part)
    real_replace, left = os.replace, 0

    def counting_replace(*args):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real_replace(*args)

    for after in range(100):
        path = tmp_path / f"{after}.zarr"
        shutil.copytree(tmp_path / "begun.zarr", path)
        left, killed = after, False
        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", counting_replace)
            try:
                write_all(path, points, stop=part + 1)
            except Killed:
                killed = True
        assert count_done(path) == (part + (not killed), 3)
        write_all(path, points)
        assert files(path) == whole
        if not killed:
            break
    assert after == 7  # four arrays, count, check and the flag


def test_a_flag_is_set_after_all_else_is_on_the_disk(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        order.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real_fsync(descriptor)

    def replace(source, target):
        order.append(("place", Path(target)))
        real_replace(source, target)

    points = some_points(COUNTS[:2])
    writer = open_writer(tmp_path / "depth.zarr", points)
    monkeypatch.setattr(atomic.os, "fsync", fsync)
    monkeypatch.setattr(atomic.os, "replace", replace)
    writer.write(0, points)
    placed = [path for kind, path in order if kind == "place"]
    assert placed[-1] == writer.parts.file(0)
    for path in placed:
        at = order.index(("place", path))
        assert order[at - 1][0] == "sync"
        assert order[at - 1][1].name.startswith(f".{path.name}.")  # its bytes
    for path in placed[:-1]:
        at = order.index(("place", path))
        name_synced = order.index(("sync", path.parent), at)
        assert name_synced < order.index(("place", placed[-1]))


def test_a_kill_while_the_store_is_made(tmp_path, monkeypatch):
    points = some_points(COUNTS)
    path = tmp_path / "depth.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(part_store, "Parts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_all(path, points)
    assert not path.exists()
    write_all(path, points)
    check(path, points)


def test_a_part_has_its_samples(tmp_path):
    points = some_points(COUNTS)
    writer = open_writer(tmp_path / "depth.zarr", points)
    with pytest.raises(ValueError, match="part 0 has 2 samples, not 1"):
        writer.write(0, points[:1])
    with pytest.raises(ValueError, match="part 2 has 1 samples, not 2"):
        writer.write(2, points[:2])
    with pytest.raises(ValueError, match="45 points in a camera, and 44 fit"):
        writer.write(2, some_points([(45, 0)]))
    assert writer.parts.pending() == [0, 1, 2]


def test_parts_can_be_written_in_any_order(tmp_path):
    points = some_points(COUNTS)
    writer = open_writer(tmp_path / "depth.zarr", points)
    for part in (2, 0, 1):
        writer.write(part, [points[s] for s in writer.samples(part)])
    check(tmp_path / "depth.zarr", points)


def test_a_store_of_other_settings_is_not_gone_on_with(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS), stop=1)
    tokens = [f"t{i}" for i in range(len(COUNTS))]
    assert DepthWriter(tmp_path / "depth.zarr", tokens, CAMERAS, 3, 2, most=44).parts.pending() == [0, 1, 2]
    assert len(list(tmp_path.glob("depth.zarr.damaged-*"))) == 1


def test_an_unfinished_store_is_not_read(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS), stop=2)
    with pytest.raises(ValueError, match="2 of 3 parts are done"):
        DepthReader(tmp_path / "depth.zarr")
    with pytest.raises(FileNotFoundError, match="geomim depth"):
        DepthReader(tmp_path / "elsewhere.zarr")


@pytest.mark.parametrize("array", ["u", "v", "depth", "sweep", "count", "check"])
@pytest.mark.parametrize("damage", ["remove", "cut", "flip", "exchange"])
def test_a_lost_or_damaged_file_is_an_error(tmp_path, array, damage):
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    (file,) = (p for p in (tmp_path / "depth.zarr" / array / "c" / "1").rglob("*") if p.is_file())
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "exchange":
        other = "v" if array == "u" else "u"
        (file,) = (p for p in (tmp_path / "depth.zarr" / other / "c" / "1").rglob("*") if p.is_file())
        file.write_bytes(data)
    else:
        data[10] ^= 0xFF
        file.write_bytes(data)
    reader = DepthReader(tmp_path / "depth.zarr")
    reader.read(0)  # of the first part, which is whole
    reader.read(4)
    with pytest.raises(Damaged, match=rf"depth.zarr/\w+/c/1.*; `geomim repair {tmp_path}` mends it"):
        [reader.read(s) for s in range(1, len(points))]
    assert [part for part in range(3) if reader.store.damage(part)] == [1]


def test_another_format_is_an_error(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS))
    file = tmp_path / "depth.zarr" / "zarr.json"
    meta = json.loads(file.read_text())
    meta["attributes"]["format"] = 0
    file.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="format 0"):
        DepthReader(tmp_path / "depth.zarr")


def test_xarray_opens_it(tmp_path):
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    data = xarray.open_zarr(tmp_path / "depth.zarr", consolidated=False)
    assert data["depth"].dims == ("sample", "camera", "slot")
    np.testing.assert_array_equal(data["u"][3, 0, :5], points[3].u[:5])
