import numpy as np
import pytest
import xarray

from storage.boxes import SLOTS, BoxStore
from storage.damage import Damaged

TOKENS = [f"t{i}" for i in range(5)]


def boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 9)).astype(np.float32), random.random(count, np.float32), np.arange(count) % 10


def test_what_is_written_is_read(tmp_path):
    store = BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=3)
    store.write(1, [boxes(4, 1), boxes(0)])
    again = BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=3)
    assert again.parts.pending() == [0]
    for got, wanted in zip(again.read(3), boxes(4, 1)):
        np.testing.assert_array_equal(got, wanted)
    assert [len(a) for a in again.read(4)] == [0, 0, 0]
    with pytest.raises(KeyError, match=r"sample 2.* is not written"):
        again.read(2)
    data = xarray.open_zarr(tmp_path / "boxes.zarr", consolidated=False)
    assert data.box.dims == ("sample", "slot", "value")
    assert int(data["count"][3]) == 4
    np.testing.assert_array_equal(data.box[3, :4], boxes(4, 1)[0])


def test_more_than_fit_are_cut_to_the_best(tmp_path):
    store = BoxStore(tmp_path / "boxes.zarr", TOKENS[:1], part_size=3)
    store.write(0, [boxes(SLOTS + 7)])
    np.testing.assert_array_equal(store.read(0)[1], boxes(SLOTS + 7)[1][:SLOTS])


def test_a_missing_chunk_is_never_data(tmp_path):
    store = BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=5)
    store.write(0, [boxes(4, i) for i in range(5)])
    for name in ("box", "score", "label", "count", "check"):
        (file,) = (p for p in (tmp_path / "boxes.zarr" / name / "c").rglob("*") if p.is_file())
        away = file.rename(tmp_path / "away")
        with pytest.raises(Damaged, match=f"{name}.* is gone"):
            BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=5).read(1)
        away.rename(file)


def test_another_store_is_moved_aside(tmp_path):
    BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=3).write(0, [boxes(2)] * 3)
    store = BoxStore(tmp_path / "boxes.zarr", TOKENS[::-1], part_size=3)
    assert store.parts.pending() == [0, 1]
    (aside,) = tmp_path.glob("boxes.zarr.damaged-*")
    assert (aside / "box" / "c" / "0").exists()


def test_its_parts_are_those_of_the_maps(tmp_path):
    BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=3).write(0, [boxes(2)] * 3)
    store = BoxStore(tmp_path / "boxes.zarr", TOKENS, part_size=1)
    assert (store.part_size, store.parts.pending()) == (1, [0, 1, 2, 3, 4])
    assert len(list(tmp_path.glob("boxes.zarr.damaged-*"))) == 1
