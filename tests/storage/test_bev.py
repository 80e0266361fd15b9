"""bev.zarr: what is written is read, by us and by plain zarr; a loss or damage is never read as zeros."""

import json
import pickle
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from storage import bev as bev_module
from storage import part_store
from storage.bev import FLIPS, BevAttributes, BevReader, BevWriter, size_of, to_half
from storage.damage import Damaged

SHAPE = (3, 4, 5)
TOKENS = np.array([f"t{i}" for i in range(7)])
ATTRIBUTES = BevAttributes((-2.0, -2.5, -1.0, 2.0, 2.5, 1.0), (1.0, 1.0), part_size=3)
ENCODINGS = ("cells", "compact", "dense")
DOCS = Path(__file__).parents[2] / "docs" / "bev-cache.md"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks so small that a map of 20 cells fills several."""
    monkeypatch.setattr(bev_module, "SLOTS", 8)


def maps(part: int, flips: int = 1) -> np.ndarray:
    """The maps of a part; what share of the cells is active differs, from all of them to none."""
    count = (1 if part == 2 else 3) * flips
    generator = np.random.default_rng(part)
    bev = generator.normal(size=(count, *SHAPE)).astype(np.float32)
    bev *= generator.random((count, 1, *SHAPE[1:])) < np.linspace(1, 0, count)[:, None, None, None]
    bev[:, 0] = 0  # a channel that is empty everywhere
    return bev + 0  # without -0


def rounded(bev: np.ndarray, bits: int) -> np.ndarray:
    """The slow, obvious way: to the nearest of the numbers with so many bits of mantissa, ties to even."""
    half = bev.astype(np.float16).astype(np.float64)
    exponent = np.maximum(np.frexp(half)[1] - 1, -14)  # from 2^-14 down the steps stay as they are
    step = np.exp2(exponent - float(bits))
    return np.rint(half / step) * step


def write(path: Path, attributes: BevAttributes = ATTRIBUTES, parts: tuple[int, ...] = (0, 2)) -> Path:
    writer = BevWriter(path, TOKENS, SHAPE, attributes)
    for part in parts:
        writer.write(part, iter(maps(part, len(attributes.flips))))
    return path


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "bev.zarr")


@pytest.mark.parametrize("flips", [FLIPS[:1], FLIPS])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_written_is_read(tmp_path, encoding, flips):
    attributes = replace(ATTRIBUTES, encoding=encoding, flips=flips)
    reader = BevReader(write(tmp_path / "bev.zarr", attributes))
    assert len(reader) == 7
    assert reader.shape == SHAPE
    assert reader.tokens == list(TOKENS)
    assert reader.attributes == attributes
    for sample, part in ((0, 0), (1, 0), (2, 0), (6, 2)):
        for i, flip in enumerate(flips):
            expected = maps(part, len(flips))[(sample - 3 * part) * len(flips) + i].astype(np.float16)
            expected = rounded(expected, 4) if encoding == "compact" else expected
            dense = reader.dense(sample, flip)
            assert dense.dtype == np.float16
            np.testing.assert_array_equal(dense, expected)
            index, values = reader.cells(sample, flip)
            active = np.arange(20) if encoding == "dense" else np.flatnonzero(expected.reshape(3, 20).any(0))
            assert index.dtype == np.int32
            np.testing.assert_array_equal(index, active)
            np.testing.assert_array_equal(values, expected.reshape(3, 20).T[active])
    np.testing.assert_array_equal(reader[6], reader.dense(6))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))[6], reader[6])


halves = st_numpy.arrays(np.float16, (2, 3, 4), elements=st.floats(-40000, 40000, width=16))


@settings(max_examples=200)
@given(halves, st.integers(1, 10))
def test_rounding_of_mantissas(bev, bits):
    np.testing.assert_array_equal(to_half(bev, bits), rounded(bev, bits))


def test_zeros_of_either_sign_are_no_active_cells(tmp_path):
    writer = BevWriter(tmp_path / "bev.zarr", TOKENS, SHAPE, ATTRIBUTES)
    bev = np.zeros((3, *SHAPE))
    bev[:, :, 1, 1], bev[:, 1, 2, 3] = -0.0, 6e-8  # the smallest float16
    writer.write(0, bev)
    assert BevReader(tmp_path / "bev.zarr").cells(0).index.tolist() == [2 * 5 + 3]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_not_there_is_never_zeros(tmp_path, encoding):
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, encoding=encoding))
    with pytest.raises(KeyError, match="part 1"):
        BevReader(store)[4]
    with pytest.raises(KeyError, match="flipped by 'x', only none"):
        BevReader(store).dense(0, "x")
    for sample in (7, -1):
        with pytest.raises(IndexError):
            BevReader(store)[sample]
    for name in BevReader(store).arrays:
        shutil.copytree(store, tmp_path / name)
        shutil.rmtree(tmp_path / name / name / "c" / "0")
        with pytest.raises(Damaged, match=r"is gone; `geomim repair"):
            BevReader(tmp_path / name)[1]
    with pytest.raises(FileNotFoundError, match="geomim teacher"):
        BevReader(store.parent / "other.zarr")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_damaged_byte_is_noticed(tmp_path, encoding):
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, encoding=encoding), parts=(2,))
    whole = BevReader(store)[6]
    for array in BevReader(store).arrays.values():
        shard = array.file(2)
        data = shard.read_bytes()
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 0x10
            shard.write_bytes(damaged)
            with pytest.raises(Damaged, match=r"cannot be read|something else"):
                BevReader(store)[6]
        for length in (0, 1, len(data) // 2, len(data) - 1):
            shard.write_bytes(data[:length])
            with pytest.raises(Damaged, match=r"cannot be read|something else"):
                BevReader(store)[6]
        shard.write_bytes(data)
    np.testing.assert_array_equal(BevReader(store)[6], whole)


def test_going_on(store):
    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    assert writer.parts.pending() == [1]
    assert list(writer.samples(1)) == [3, 4, 5]
    assert list(writer.samples(2)) == [6]
    writer.write(1, maps(1))
    np.testing.assert_array_equal(BevReader(store)[4], maps(1)[1].astype(np.float16))


@pytest.mark.parametrize("other", ["samples", "settings", "metadata"])
def test_another_or_damaged_store_is_moved_aside(store, other):
    tokens, attributes = TOKENS, ATTRIBUTES
    if other == "samples":
        tokens = TOKENS[::-1]
    elif other == "settings":
        attributes = replace(ATTRIBUTES, encoding="dense")
    else:
        (store / "token" / "zarr.json").write_text("{")
    assert BevWriter(store, tokens, SHAPE, attributes).parts.pending() == [0, 1, 2]
    (aside,) = store.parent.glob("bev.zarr.damaged-*")
    assert (aside / "active" / "c" / "2").exists()


def test_a_begun_store_keeps_its_part_size(store):
    writer = BevWriter(store, TOKENS, SHAPE, replace(ATTRIBUTES, part_size=1))
    assert (writer.part_size, writer.parts.pending()) == (3, [1])


def exchange(store: Path, names: list[str]) -> None:
    """Parts 0 and 1 of these arrays. Its own inverse."""
    for name in names:
        first, second = (store / name / "c" / part for part in "01")
        first.rename(store / "away")
        second.rename(first)
        (store / "away").rename(second)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_part_in_anothers_place_is_noticed(tmp_path, encoding):
    """Exchanged with and without what stands beside them: the values would be those of other samples."""
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, encoding=encoding), parts=(0, 1, 2))
    maps_in = list(BevReader(store).arrays)
    for names in ([name] for name in (*maps_in, "check")), ([*maps_in, "count", "check"],):
        for group in names:
            exchange(store, group)
            with pytest.raises(Damaged, match=r"something else than sample t[0-5]"):
                [BevReader(store)[sample] for sample in range(6)]
            assert BevReader(store).store.damage(0) is not None
            exchange(store, group)
    assert [BevReader(store).store.damage(part) for part in range(3)] == [None] * 3


@pytest.mark.parametrize("damage", ["empty", "gone", "flip", "check"])
def test_a_flagged_part_that_is_damaged_is_found_when_work_goes_on(store, damage):
    shard = store / "active" / "c" / "0" / "0" / "0" / "0"
    if damage == "empty":
        shard.write_bytes(b"")
    elif damage == "gone":
        shard.unlink()
    elif damage == "check":
        (store / "check" / "c" / "0" / "0" / "0").write_bytes(b"")
    else:
        data = bytearray(shard.read_bytes())
        data[0] ^= 1
        shard.write_bytes(data)
    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    assert writer.parts.pending() == [1]
    assert len(writer.store.mend()) == 1
    assert writer.parts.pending() == [0, 1]
    writer.write(0, iter(maps(0)))
    np.testing.assert_array_equal(BevReader(store)[1], maps(0)[1].astype(np.float16))
    assert writer.store.mend() == []


class Killed(Exception):
    pass


def test_a_kill_while_the_store_is_made_leaves_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(part_store, "Parts", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            BevWriter(tmp_path / "bev.zarr", TOKENS, SHAPE, ATTRIBUTES)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bev.zarr")


def test_a_part_that_fails_leaves_the_store_as_it_was(store):
    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}

    before = files()

    def failing():
        yield from maps(1)[:2]
        raise Killed

    writer = BevWriter(store, TOKENS, SHAPE, ATTRIBUTES)
    with pytest.raises(Killed):
        writer.write(1, failing())
    for wrong in (maps(1)[:2], np.concatenate([maps(1), maps(2)])):
        with pytest.raises(ValueError, match="part 1 has 3 maps, not"):
            writer.write(1, wrong)
    with pytest.raises(ValueError, match=r"a map of shape \(3, 5, 4\), not \(3, 4, 5\)"):
        writer.write(1, maps(1).swapaxes(2, 3))
    assert files() == before


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_beyond_float16_are_refused(tmp_path, encoding):
    writer = BevWriter(tmp_path / "bev.zarr", TOKENS, SHAPE, replace(ATTRIBUTES, encoding=encoding))
    nan = np.array(0x7FFFFFFF, np.uint32).view(np.float32)  # all bits of the mantissa set
    for bad in (np.nan, nan, -nan, np.inf, -np.inf, 7e4, 65520.0):
        bev = maps(1)
        bev[0, 1, 2, 3] = bad
        with pytest.raises(ValueError, match=r"part 1: .* float16"):
            writer.write(1, bev)
    assert writer.parts.pending() == [0, 1, 2]
    bev[0, 1, 2, 3] = 63488.0
    writer.write(1, bev)
    assert BevReader(tmp_path / "bev.zarr")[3].max() == 63488.0


def _write_part(path: Path, part: int) -> None:
    write(path, parts=(part,))


def test_processes_create_and_write_at_the_same_time(tmp_path):
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        for waiting in [pool.submit(_write_part, tmp_path / "bev.zarr", part) for part in (0, 1, 2)]:
            waiting.result()
    assert [p.name for p in tmp_path.iterdir()] == ["bev.zarr"]
    reader = BevReader(tmp_path / "bev.zarr")
    for sample in range(7):
        expected = maps(sample // 3)[sample % 3].astype(np.float16)
        np.testing.assert_array_equal(reader[sample], expected)


def test_another_format_is_an_error(store):
    file = store / "zarr.json"
    meta = json.loads(file.read_text())
    meta["attributes"]["format"] = 1
    file.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="format 1, not 3; run"):
        BevReader(store)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_zarr_reads_and_rewrites_the_same_shards(tmp_path, encoding):
    """zarr-python decodes what is written here; what it writes from that is decoded here, and told from our own."""
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, encoding=encoding, flips=FLIPS), parts=(0, 1, 2))
    reader = BevReader(store)
    places = [(name, s, f) for name in reader.arrays for s in range(7) for f in range(4)]
    expected = {place: reader.store.read(*place) for place in places}
    group = zarr.open_group(str(store), mode="r+")
    for name, array in reader.arrays.items():
        content = group[name][:]
        for s in range(7):
            for f in range(4):
                rows = expected[name, s, f]
                np.testing.assert_array_equal(content[s, f][: len(rows)], rows[: len(content[s, f])])
        shutil.rmtree(array.path / "c")
        group[name][:] = content
    left_out = 0
    for (name, s, f), values in expected.items():
        part, row = divmod(s, ATTRIBUTES.part_size)
        rewritten, _ = reader.arrays[name].read(part, (row, f))
        if values.any():
            np.testing.assert_array_equal(rewritten, values)
        elif name != "value":  # zarr leaves out a chunk of zeros; the writer here does not
            left_out += 1
            with pytest.raises(Damaged, match=f"lacks a chunk of sample t{s}"):
                BevReader(store).store.read(name, s, f)
    assert left_out >= 3


def test_xarray_opens_it(store):
    data = xarray.open_zarr(store, consolidated=False)
    assert data.active.dims == ("sample", "flip", "x", "y")
    assert data.value.dims == ("sample", "flip", "slot", "channel")
    assert data.attrs["frame"].startswith("LIDAR_TOP")
    assert data.attrs["cell_size"] == [1.0, 1.0]
    assert data.attrs["flips"] == ["none"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_recipes_of_the_docs(tmp_path, encoding):
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, encoding=encoding))
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    libraries = set()
    for block in blocks:
        if ('"dense"' in block) == (encoding == "dense"):
            names = {"path": str(store), "sample": 1}
            exec(block, names)
            np.testing.assert_array_equal(names["bev"], BevReader(store)[1])
            libraries |= {"zarr", "xarray"} & names.keys()
    assert libraries == {"zarr", "xarray"}


def test_size(tmp_path):
    store = write(tmp_path / "bev.zarr", replace(ATTRIBUTES, flips=FLIPS[:1]), parts=(0, 1, 2))
    shards = [a.file(part).stat().st_size for a in BevReader(store).arrays.values() for part in range(3)]
    active = np.concatenate([maps(part) for part in range(3)]).any(1).mean()
    assert size_of(store) == {
        "encoding": "cells",
        "flips": ["none"],
        "active_share": round(float(active), 4),
        "bytes_per_sample": round(sum(shards) / 7),
        "nuscenes_train_gb": round(sum(shards) / 7 * 28_130 / 1e9, 1),
        "nuscenes_trainval_gb": round(sum(shards) / 7 * 34_149 / 1e9, 1),
    }
