"""depth.zarr: what is written is read, a kill costs one part at most, and a loss is never read as data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import depth as depth_module
from storage.depth import DepthReader, DepthWriter, SamplePoints
from storage.parts import count_done

CAMERAS = ("left", "right")


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Chunks and files so small that a few samples fill several of them."""
    monkeypatch.setattr(depth_module, "CHUNK", 8)
    monkeypatch.setattr(depth_module, "SHARD", 32)


def sample_points(rng: np.random.Generator, counts: tuple[int, int]) -> SamplePoints:
    n = sum(counts)
    u, v, depth = rng.uniform(1, 50, (3, n)).astype(np.float32)
    sweep = rng.integers(0, 3, n).astype(np.uint8)
    return SamplePoints(u, v, depth, sweep, np.cumsum([0, *counts]))


def some_points(counts) -> list[SamplePoints]:
    rng = np.random.default_rng(0)
    return [sample_points(rng, c) for c in counts]


def write_all(path: Path, points: list[SamplePoints], part_samples: int = 2, stop: int | None = None) -> None:
    writer = DepthWriter(path, len(points), CAMERAS, 2, part_samples)
    for part in range(writer.next, writer.parts.count if stop is None else stop):
        writer.write(part, [points[s] for s in writer.samples_of(part)])


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def check(path: Path, points: list[SamplePoints]) -> None:
    reader = DepthReader(path)
    assert len(reader) == len(points)
    assert reader.cameras == CAMERAS
    for s, expected in enumerate(points):
        found = reader.read(s)
        for name in ("u", "v", "depth", "sweep", "offsets"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


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


def test_offsets_are_flat_rows(tmp_path):
    import zarr

    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    group = zarr.open_group(str(tmp_path / "depth.zarr"), mode="r")
    offsets = group["offsets"][...]
    assert group.attrs["cameras"] == list(CAMERAS)
    assert group["offsets"].metadata.dimension_names == ("sample", "camera_edge")
    np.testing.assert_array_equal(offsets[:, 1] - offsets[:, 0], [left for left, _ in COUNTS])
    np.testing.assert_array_equal(offsets[1:, 0], offsets[:-1, 2])
    rows = slice(*offsets[2, 1:3])
    np.testing.assert_array_equal(group["depth"][rows], points[2].depth[40:])


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
    """Stop after the 0th, 1st, 2nd ... file written within a part, run again, compare every byte."""
    from zarr.storage import LocalStore

    points = some_points(COUNTS)
    write_all(tmp_path / "whole.zarr", points)
    whole = files(tmp_path / "whole.zarr")
    write_all(tmp_path / "begun.zarr", points, stop=part)
    real_set, left = LocalStore.set, 0

    async def counting_set(store, key, value):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        await real_set(store, key, value)

    for after in range(100):
        path = tmp_path / f"{after}.zarr"
        shutil.copytree(tmp_path / "begun.zarr", path)
        left, killed = after, False
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "set", counting_set)
            try:
                write_all(path, points, stop=part + 1)
            except Killed:
                killed = True
        assert count_done(path) == (part + (not killed), 3)
        write_all(path, points)
        assert files(path) == whole
        if not killed:
            break
    # Four arrays each grow by a metadata and a data file at least; then offsets and flag.
    assert after >= 10


def test_a_kill_while_the_store_is_made(tmp_path, monkeypatch):
    points = some_points(COUNTS)
    path = tmp_path / "depth.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(depth_module, "Parts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_all(path, points)
    assert not path.exists()
    write_all(path, points)
    check(path, points)


def test_parts_are_written_in_order(tmp_path):
    points = some_points(COUNTS)
    writer = DepthWriter(tmp_path / "depth.zarr", len(points), CAMERAS, 2, 2)
    with pytest.raises(ValueError, match="part 0 comes next"):
        writer.write(1, points[2:4])
    with pytest.raises(ValueError, match="part 0 comes next"):
        writer.write(0, points[:1])


def test_a_store_of_other_settings_is_not_gone_on_with(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS), stop=1)
    with pytest.raises(ValueError, match="other settings"):
        DepthWriter(tmp_path / "depth.zarr", len(COUNTS), CAMERAS, 3, 2)
    with pytest.raises(ValueError, match="other settings"):
        DepthWriter(tmp_path / "depth.zarr", len(COUNTS) + 1, CAMERAS, 2, 2)


def test_an_unfinished_store_is_not_read(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS), stop=2)
    with pytest.raises(ValueError, match="2 of 3 parts are done"):
        DepthReader(tmp_path / "depth.zarr")
    with pytest.raises(FileNotFoundError, match="geomim depth"):
        DepthReader(tmp_path / "elsewhere.zarr")


@pytest.mark.parametrize("array", ["u", "v", "depth", "sweep"])
@pytest.mark.parametrize("damage", ["remove", "cut", "flip"])
def test_a_lost_or_damaged_file_is_an_error(tmp_path, array, damage):
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    file = tmp_path / "depth.zarr" / array / "c" / "1"
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[10] ^= 0xFF
        file.write_bytes(data)
    reader = DepthReader(tmp_path / "depth.zarr")
    reader.read(0)  # of the first file, which is whole
    with pytest.raises(ValueError, match=rf"{array}: .*(missing|damaged).*force depth"):
        [reader.read(s) for s in range(1, len(points))]


def test_lost_offsets_are_an_error(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS))
    shutil.rmtree(tmp_path / "depth.zarr" / "offsets" / "c" / "1")
    with pytest.raises(ValueError, match="offsets"):
        DepthReader(tmp_path / "depth.zarr")


def test_another_format_is_an_error(tmp_path):
    write_all(tmp_path / "depth.zarr", some_points(COUNTS))
    file = tmp_path / "depth.zarr" / "zarr.json"
    meta = json.loads(file.read_text())
    meta["attributes"]["format"] = 0
    file.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="format 0"):
        DepthReader(tmp_path / "depth.zarr")


def test_xarray_opens_it(tmp_path):
    xarray = pytest.importorskip("xarray")
    points = some_points(COUNTS)
    write_all(tmp_path / "depth.zarr", points)
    data = xarray.open_zarr(tmp_path / "depth.zarr", consolidated=False)
    assert data["depth"].dims == ("point",)
    np.testing.assert_array_equal(data["u"].values, np.concatenate([p.u for p in points]))
