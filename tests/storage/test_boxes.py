import numpy as np
import pytest
import xarray

from storage.boxes import SLOTS, BoxStore


def boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 9)).astype(np.float32), random.random(count, np.float32), np.arange(count) % 10


def test_what_is_written_is_read(tmp_path):
    store = BoxStore(tmp_path / "boxes.zarr", samples=5, part_size=3)
    store.write(1, [boxes(4, 1), boxes(0)])
    again = BoxStore(tmp_path / "boxes.zarr", samples=5, part_size=3)
    assert again.parts.pending() == [0]
    for got, wanted in zip(again.read(3), boxes(4, 1)):
        np.testing.assert_array_equal(got, wanted)
    assert [len(a) for a in again.read(4)] == [0, 0, 0]
    with pytest.raises(KeyError, match="sample 2 is not written"):
        again.read(2)
    data = xarray.open_zarr(tmp_path / "boxes.zarr", consolidated=False)
    assert data.box.dims == ("sample", "slot", "value")
    assert int(data["count"][3]) == 4


def test_more_than_fit_are_cut_to_the_best(tmp_path):
    store = BoxStore(tmp_path / "boxes.zarr", samples=1, part_size=3)
    store.write(0, [boxes(SLOTS + 7)])
    np.testing.assert_array_equal(store.read(0)[1], boxes(SLOTS + 7)[1][:SLOTS])


def test_another_store_is_refused(tmp_path):
    BoxStore(tmp_path / "boxes.zarr", samples=5, part_size=3)
    with pytest.raises(ValueError, match="other samples or parts"):
        BoxStore(tmp_path / "boxes.zarr", samples=5, part_size=4)
