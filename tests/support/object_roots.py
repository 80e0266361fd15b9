"""Fixtures: an S3 server on this machine, a bucket of it, and a mirror of that with what another machine has sent."""

import pickle
import threading

import numpy as np
import pytest

from object_store import credentials, new_bucket, s3_server
from small_artifacts import RECIPE, SAMPLES, small_teacher
from storage.bev import BevReader
from storage.mirror import mirror_at
from storage.remote import Remote
from storage.transfer import pull, push


@pytest.fixture(scope="session")
def s3():
    """The port of a server."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3, monkeypatch):
    """The URL of an empty object root."""
    for name, value in credentials(s3).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3)


@pytest.fixture(params=["s3", "file"])
def remote(request, tmp_path):
    if request.param == "file":
        return Remote(f"file://{tmp_path / 'objects'}")
    return Remote(request.getfixturevalue("bucket"))


@pytest.fixture
def mirror(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMIM_CACHE", str(tmp_path / "cache"))
    return mirror_at(bucket)


@pytest.fixture
def maps(tmp_path, mirror):
    """What another machine has sent, as it was there."""
    artifact = small_teacher(tmp_path / "theirs")
    push(artifact.path, mirror.remote)
    reader = BevReader(artifact.path / "bev.zarr")
    return [reader[sample].copy() for sample in range(SAMPLES)]


@pytest.fixture
def brought(mirror, maps):
    """The artifact as the mirror has it: without its shards."""
    return pull(mirror.remote, "teacher", RECIPE.key, mirror.root, without_shards=True)[0]


def at_once(do, count):
    """What `do` gives for each number below `count`, each in a thread of its own."""
    out = [None] * count

    def one(number):
        out[number] = do(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def read_sums(pickled, seed):
    """In another process: the sum of every map, read in an order of its own."""
    reader, sums = pickle.loads(pickled), [0.0] * SAMPLES
    for sample in np.random.default_rng(seed).permutation(SAMPLES):
        sums[sample] = float(reader[sample].astype(np.float64).sum())
    return sums
