"""The bounded cache of shards, from which the stores of an object root are read by many at once."""

import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from common.errors import DataError, UserError
from damages import damage, emptied, noise, zeros
from object_roots import brought, bucket, maps, mirror, read_sums, s3
from object_store import Faults, credentials, proxy
from small_artifacts import RECIPE, SAMPLES
from storage import remote, shard_cache
from storage.bev import BevReader
from storage.manifest import read_manifest, shards
from storage.transfer import place_of

__all__ = ["brought", "bucket", "maps", "mirror", "s3"]


def shard_bytes(artifact):
    manifest = read_manifest(artifact.path)
    sizes = {manifest.files[name][0] for name in shards(manifest)}
    return max(sizes)


def cached(mirror):
    folder = mirror.root / ".shards"
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def test_reading_fetches_a_shard_once(mirror, brought, maps):
    reader = BevReader(brought.path / "bev.zarr")
    for sample in (0, 1, 0, 5):
        np.testing.assert_array_equal(reader[sample], maps[sample])
    assert len(cached(mirror)) == 2
    before = {path: path.stat().st_ino for path in cached(mirror)}
    np.testing.assert_array_equal(BevReader(brought.path / "bev.zarr")[0], maps[0])
    assert {path: path.stat().st_ino for path in cached(mirror)} == before


def test_a_store_that_is_named_from_the_folder_it_is_in(brought, maps, monkeypatch):
    monkeypatch.chdir(brought.path)
    np.testing.assert_array_equal(BevReader("bev.zarr")[3], maps[3])


def test_what_was_not_read_for_longest_goes(mirror, brought, monkeypatch):
    size = shard_bytes(brought)
    monkeypatch.setenv("GEOMIM_CACHE_GB", str(3.5 * size / 1e9))
    reader = BevReader(brought.path / "bev.zarr")
    for sample in (0, 2, 4, 0, 6):
        reader[sample]
    parts = sorted(path.name.split("-c-")[1][0] for path in cached(mirror))
    assert parts == ["0", "2", "3"]


@pytest.mark.parametrize("shards_of_room", [0.5, 1.5, 3.5])
def test_many_readers_stay_within_the_bound(mirror, brought, maps, monkeypatch, shards_of_room):
    """By one shard at most, where not even one fits; and all read what is there."""
    limit = int(shards_of_room * shard_bytes(brought))
    monkeypatch.setenv("GEOMIM_CACHE_GB", str(limit / 1e9))
    most, wrong, ended = [0], [], threading.Event()

    def watch():
        while not ended.is_set():
            here = 0
            with shard_cache._alone(mirror.root / ".shards"):
                for path in (mirror.root / ".shards").iterdir():
                    if not path.name.endswith(".lock") and path.exists():
                        here += path.stat().st_size
            most[0] = max(most[0], here)
            time.sleep(0.002)

    def read(seed):
        reader = BevReader(brought.path / "bev.zarr")
        for sample in np.random.default_rng(seed).integers(0, SAMPLES, 12):
            if not np.array_equal(reader[sample], maps[sample]):
                wrong.append(sample)

    read(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    if shards_of_room == 1.5:  # which takes seconds
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            sums = list(pool.map(read_sums, [pickle.dumps(BevReader(brought.path / "bev.zarr"))] * 2, range(2)))
        assert sums == [[float(bev.astype(np.float64).sum()) for bev in maps]] * 2
    for thread in threads:
        thread.join()
    ended.set()
    watcher.join()
    assert not wrong
    assert 0 < most[0] <= limit + (shard_bytes(brought) if shards_of_room < 1 else 0)


def test_what_a_killed_reader_left_goes(mirror, brought):
    reader = BevReader(brought.path / "bev.zarr")
    reader[0]
    (mirror.root / ".shards" / ".x.0123").write_bytes(b"half")
    reader[2]
    assert not (mirror.root / ".shards" / ".x.0123").exists()


@pytest.mark.parametrize("how", [emptied, noise, zeros])
def test_a_cached_shard_that_is_damaged_is_fetched_again(mirror, brought, maps, how):
    BevReader(brought.path / "bev.zarr")[0]
    (path,) = cached(mirror)
    damage(path, how)
    np.testing.assert_array_equal(BevReader(brought.path / "bev.zarr")[0], maps[0])


def test_reading_through_faults(brought, maps, s3, monkeypatch, tmp_path):
    remote.remote_at.cache_clear()
    faults = Faults(0.4, seed=2)
    with proxy(s3, faults) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        reader = BevReader(brought.path / "bev.zarr")
        for sample in range(SAMPLES):
            np.testing.assert_array_equal(reader[sample], maps[sample])
        remote.remote_at.cache_clear()
    assert faults.seen


def test_a_damaged_shard_there_is_one_sentence(mirror, brought, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.0,) * 3)
    (name, *_) = sorted(shards(read_manifest(brought.path)))
    mirror.remote.put(f"{place_of('teacher', RECIPE.key)}/{name}", b"noise")
    with pytest.raises(DataError, match=rf"{name}: has 5 bytes, not \d+; `geomim push --force`"):
        BevReader(brought.path / "bev.zarr")[0]


def test_a_bound_that_is_no_number(brought, monkeypatch):
    monkeypatch.setenv("GEOMIM_CACHE_GB", "much")
    with pytest.raises(UserError, match="GEOMIM_CACHE_GB=much: is no positive number; set one such as 50"):
        BevReader(brought.path / "bev.zarr")[0]
