from concurrent.futures import ThreadPoolExecutor

import pytest
import zarr

from storage.parts import Parts, count_done


def test_parts_are_pending_until_marked(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    parts = Parts(group, 3)
    assert parts.pending() == [0, 1, 2]
    parts.mark(1)
    assert parts.pending() == [0, 2]
    assert parts.is_done(1)
    again = Parts(zarr.open_group(str(tmp_path / "a.zarr"), mode="r"))
    assert again.pending() == [0, 2]
    assert count_done(tmp_path / "a.zarr") == (1, 3)


def test_parallel_marks_lose_no_flag(tmp_path):
    path = str(tmp_path / "a.zarr")
    Parts(zarr.open_group(path, mode="w"), 64)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: Parts(zarr.open_group(path, mode="r+")).mark(part), range(64)))
    assert Parts(zarr.open_group(path, mode="r")).pending() == []
    assert count_done(tmp_path / "a.zarr") == (64, 64)


def test_another_count_is_another_store(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    Parts(group, 3)
    with pytest.raises(ValueError, match="3 parts, not 4"):
        Parts(group, 4)


def test_a_store_without_flags(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    assert count_done(tmp_path / "a.zarr") is None
    with pytest.raises(ValueError, match="no store written in parts"):
        Parts(group)
