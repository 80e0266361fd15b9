import pickle
import shutil

import numpy as np
import pytest
import xarray

from storage.bev import BevAttributes, BevReader, BevWriter

SHAPE = (3, 4, 5)
TOKENS = np.array([f"t{i}" for i in range(7)])
ATTRIBUTES = BevAttributes((-2.0, -2.5, -1.0, 2.0, 2.5, 1.0), (1.0, 1.0), part_size=3)


def maps(part: int) -> np.ndarray:
    count = 1 if part == 2 else 3
    bev = np.random.default_rng(part).normal(size=(count, *SHAPE)).astype(np.float32)
    bev[:, 0] = 0  # a channel that is empty everywhere
    return bev


@pytest.fixture
def store(tmp_path):
    writer = BevWriter(tmp_path / "bev.zarr", TOKENS, SHAPE, ATTRIBUTES)
    for part in (0, 2):
        writer.write(part, maps(part))
    return tmp_path / "bev.zarr"


def test_what_is_written_is_read(store):
    reader = BevReader(store)
    assert len(reader) == 7
    assert reader.shape == SHAPE
    assert reader.tokens == list(TOKENS)
    assert reader.attributes == ATTRIBUTES
    assert reader[1].dtype == np.float16
    np.testing.assert_array_equal(reader[1], maps(0)[1].astype(np.float16))
    np.testing.assert_array_equal(reader[6], maps(2)[0].astype(np.float16))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))[6], reader[6])


def test_what_is_not_there_is_never_zeros(store):
    with pytest.raises(KeyError, match="part 1"):
        BevReader(store)[4]
    with pytest.raises(IndexError):
        BevReader(store)[7]
    shutil.rmtree(store / "bev" / "c" / "0")
    with pytest.raises(OSError, match="is gone"):
        BevReader(store)[0]
    with pytest.raises(FileNotFoundError, match="geomim teacher"):
        BevReader(store.parent / "other.zarr")


def test_damage_is_noticed(store):
    shard = store / "bev" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)crc|checksum|zstd"):
        BevReader(store)[0]
    shard.write_bytes(b"")
    with pytest.raises((ValueError, OSError, RuntimeError, KeyError)):
        BevReader(store)[0]


def test_maps_that_are_all_zero_are_written_like_others(store):
    BevWriter(store, TOKENS, SHAPE, ATTRIBUTES).write(1, np.zeros((3, *SHAPE)))
    assert (store / "bev" / "c" / "1" / "0" / "0" / "0").is_file()
    assert not BevReader(store)[4].any()


def test_going_on(store):
    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    assert writer.parts.pending() == [1]
    assert list(writer.samples(1)) == [3, 4, 5]
    assert list(writer.samples(2)) == [6]
    writer.write(1, maps(1))
    np.testing.assert_array_equal(BevReader(store)[4], maps(1)[1].astype(np.float16))
    with pytest.raises(ValueError, match="other samples"):
        BevWriter(store, TOKENS[::-1], SHAPE, ATTRIBUTES)


def test_creation_that_was_interrupted_starts_afresh(store):
    shutil.rmtree(store / "token")
    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    assert writer.parts.pending() == [0, 1, 2]


def test_values_beyond_float16_are_refused(store):
    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    for bad in (np.nan, np.inf, 7e4):
        bev = maps(1)
        bev[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match="float16"):
            writer.write(1, bev)
    with pytest.raises(ValueError, match="part 1 has 3 maps"):
        writer.write(1, maps(2))
    assert writer.parts.pending() == [1]


def test_xarray_opens_it(store):
    data = xarray.open_zarr(store, consolidated=False)
    assert data.bev.dims == ("sample", "channel", "x", "y")
    assert data.attrs["frame"].startswith("LIDAR_TOP")
    assert data.attrs["cell_size"] == [1.0, 1.0]
    np.testing.assert_array_equal(data.bev[1].values, BevReader(store)[1])
