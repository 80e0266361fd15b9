"""index.zarr: a missing or damaged file is never read as data."""

import shutil

import numpy as np
import pytest

from storage.damage import Damaged
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index

SIZES = FIXED | {"sample": 2, "sample_edge": 3, "scene": 1, "camera": 6, "sweep": 1, "frame": 0, "box": 3}


@pytest.fixture
def index(tmp_path):
    arrays = {}
    for name, (dtype, dimensions) in SCHEMA.items():
        shape = [SIZES[dimension] for dimension in dimensions]
        arrays[name] = np.full(shape, "a", object) if dtype == "str" else np.ones(shape, dtype)
    write_index(tmp_path / "index.zarr", arrays, IndexAttributes("v1.0-mini", ("a",) * 6, ("car",)))
    return tmp_path / "index.zarr"


def read(path):
    opened = Index.open(path)
    return {name: getattr(opened, name) for name in SCHEMA}


def test_frames_to_the_global_one(index):
    """A point on the x axis of each frame, moved by one matrix after the other."""
    opened, random = Index.open(index), np.random.default_rng(0)
    for name in ("lidar_to_ego", "lidar_ego_to_global", "camera_to_ego", "camera_ego_to_global"):
        opened.__dict__[name] = random.normal(size=getattr(opened, name).shape)
    point = np.array([2.0, 0, 0, 1])
    in_global = opened.lidar_ego_to_global[1] @ (opened.lidar_to_ego[1] @ point)
    np.testing.assert_allclose(opened.lidar_to_global(1) @ point, in_global, rtol=1e-12)
    for camera in range(6):
        in_global = opened.camera_ego_to_global[1, camera] @ (opened.camera_to_ego[1, camera] @ point)
        np.testing.assert_allclose(opened.camera_to_global(1)[camera] @ point, in_global, rtol=1e-12)


@pytest.mark.parametrize("name", ["lidar_to_ego", "token", "box_label", "split"])
def test_a_chunk_that_is_gone_is_never_zeros(index, name):
    shutil.rmtree(index / name / "c")
    with pytest.raises(Damaged, match=f"{name}.* is gone; `geomim repair {index.parent}` mends it"):
        read(index)


def test_an_array_that_is_gone(index):
    shutil.rmtree(index / "lidar_to_ego")
    with pytest.raises(Damaged, match="lidar_to_ego"):
        read(index)


def test_any_flipped_bit_of_a_chunk_is_noticed(index):
    for name in ("lidar_to_ego", "token", "box_label"):
        (file,) = (p for p in (index / name / "c").rglob("*") if p.is_file())
        data = file.read_bytes()
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            file.write_bytes(damaged)
            with pytest.raises(Damaged):
                read(index)
        file.write_bytes(data)
    read(index)


def test_damaged_metadata(index):
    for file in (index / "zarr.json", index / "split" / "zarr.json"):
        whole = file.read_text()
        file.write_text(whole[: len(whole) // 2])
        with pytest.raises(Damaged):
            read(index)
        file.write_text(whole)


def test_a_text_that_stands_a_million_times_is_one_object(index):
    opened = Index.open(index)
    for name in ("split", "box_category", "box_attribute"):
        values = getattr(opened, name)
        assert values.dtype == object
        assert values.tolist() == ["a"] * len(values)
        assert len({id(value) for value in values.tolist()}) == 1
