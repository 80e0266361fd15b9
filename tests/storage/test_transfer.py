"""Artifacts to an object root and back: with faults, kills, other pushers and damage, nothing is lost or read wrong."""

import filecmp
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import zarr

from common.errors import DataError, FileSystemError, UserError
from object_roots import bucket, s3
from object_store import Faults, credentials, proxy
from small_artifacts import RECIPE, small_teacher
from storage import at_once, remote_lease
from storage import remote as remote_module
from storage.artifact import Artifact
from storage.bev import BevReader
from storage.damage import Damaged
from storage.lock import locked
from storage.manifest import MANIFEST, files
from storage.remote import Remote
from storage.store import leftovers
from storage.transfer import lease_of, manifest_there, place_of, pull, push

__all__ = ["bucket", "s3"]

KEY = RECIPE.key
PLACE = place_of("teacher", KEY)


@pytest.fixture
def artifact(tmp_path):
    return small_teacher(tmp_path / "a")


def same(one, other):
    """The same files with the same bytes."""
    names = [*files(one), MANIFEST]
    assert names == [*files(other), MANIFEST]
    assert filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


@pytest.mark.parametrize("scheme", ["s3", "file"])
def test_there_and_back(artifact, tmp_path, request, scheme):
    url = request.getfixturevalue("bucket") if scheme == "s3" else f"file://{tmp_path}/objects"
    remote, told = Remote(url), []
    manifest, sent = push(artifact.path, remote, sent=told.append)
    assert sent == manifest.bytes
    assert sorted(told) == sorted(manifest.files)
    assert push(artifact.path, remote) == (manifest, 0)
    assert manifest_there(remote, "teacher", KEY[:16]) == manifest
    told.clear()
    there, came = pull(remote, "teacher", KEY[:16], tmp_path / "b", came=told.append)
    assert (there.key, came) == (KEY, manifest.bytes)
    assert sorted(told) == sorted(manifest.files)
    same(artifact.path, there.path)
    assert pull(remote, "teacher", KEY, tmp_path / "b")[1] == 0
    assert leftovers(tmp_path / "a") == leftovers(tmp_path / "b") == []


def test_a_synced_bucket_is_a_root(artifact, tmp_path):
    push(artifact.path, Remote(f"file://{tmp_path}/objects"))
    same(artifact.path, Artifact(tmp_path / "objects", "teacher", KEY).path)


def test_plain_zarr_opens_a_store_in_place(artifact, bucket):
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    push(artifact.path, Remote(bucket))
    store = from_url(f"{bucket}/{PLACE}/bev.zarr", client_options={"allow_http": True})
    there = zarr.open_group(ObjectStore(store, read_only=True), mode="r")
    reader = BevReader(artifact.path / "bev.zarr")
    np.testing.assert_array_equal(there["bev"][:, 0], [reader[sample] for sample in range(len(reader))])


def test_through_faults(artifact, bucket, s3, tmp_path, monkeypatch):
    faults = Faults(0.35, seed=3)
    with proxy(s3, faults) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        push(artifact.path, Remote(bucket))
        there, _ = pull(Remote(bucket), "teacher", KEY, tmp_path / "b")
    same(artifact.path, there.path)
    assert sum(faults.seen.values()) > 30


@pytest.mark.parametrize("what", ["push", "pull"])
def test_killed_in_the_middle_it_goes_on(artifact, bucket, s3, tmp_path, what):
    """What was moved before is not moved again, and nobody sees half of it meanwhile."""
    remote, total = Remote(bucket), artifact.finished().bytes
    if what == "pull":
        push(artifact.path, remote)
    word = f"{what}(Path({str(artifact.path)!r}), remote, sent=told)"
    if what == "pull":
        word = f"pull(remote, 'teacher', {KEY!r}, Path({str(tmp_path / 'b')!r}), came=told)"
    code = f"""
import time
from pathlib import Path
from storage import at_once
from storage.remote import Remote
from storage.transfer import pull, push
at_once.FILES_AT_ONCE, remote = 1, Remote({bucket!r})
def told(name):
    print(name, flush=True)
    time.sleep(0.05)
{word}
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    for _ in range(10):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    if what == "push":
        assert manifest_there(remote, "teacher", KEY) is None
        assert len(leftovers(tmp_path / "a")) == 2  # the journal, and the lock
        _, moved = push(artifact.path, remote)
    else:
        assert not Artifact(tmp_path / "b", "teacher", KEY).has_manifest()
        _, moved = pull(remote, "teacher", KEY, tmp_path / "b")
    assert 0 < moved < total
    same(artifact.path, pull(remote, "teacher", KEY, tmp_path / "b")[0].path)
    assert leftovers(tmp_path / "a") == []


def test_of_two_pushers_one_is_there_and_whole(artifact, bucket, tmp_path):
    """Two machines made it, with other bytes: a mixture of both would be nobody's."""
    other, outcomes = small_teacher(tmp_path / "other", seed=1), {}
    sides = {"a": artifact, "b": other}

    def send(name):
        outcomes[name] = push(sides[name].path, Remote(bucket))

    threads = [threading.Thread(target=send, args=(name,)) for name in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [name for name, (_, sent) in outcomes.items() if sent]
    assert outcomes["a"][0] == outcomes["b"][0] == sides[winner].finished()
    same(sides[winner].path, pull(Remote(bucket), "teacher", KEY, tmp_path / "c")[0].path)


def test_what_a_pusher_left_that_died_is_replaced(artifact, bucket, tmp_path, monkeypatch):
    remote, other = Remote(bucket), small_teacher(tmp_path / "other", seed=1)
    for name in list(other.finished().files)[::2]:
        remote.put(f"{PLACE}/{name}", other.path / name)
    push(artifact.path, remote)
    same(artifact.path, pull(remote, "teacher", KEY, tmp_path / "c")[0].path)


def test_a_pusher_that_was_taken_for_dead_ends(artifact, bucket, monkeypatch):
    monkeypatch.setattr(remote_lease, "SECONDS_TO_LIVE", 0.6)
    monkeypatch.setattr(at_once, "FILES_AT_ONCE", 1)
    remote, begun = Remote(bucket), []

    def stolen(name):
        if not begun:
            begun.append(name)
            remote.put(lease_of("teacher", KEY), b"{}")
            threading.Event().wait(0.7)

    with pytest.raises(FileSystemError, match="another process may have taken the work over; the same command goes on"):
        push(artifact.path, remote, sent=stolen)
    assert manifest_there(remote, "teacher", KEY) is None


def test_a_push_and_a_run_of_the_same_artifact_do_not_wait_for_each_other(artifact, tmp_path):
    """A run takes the lease, then the lock; and so does a push."""
    remote, waits = Remote(f"file://{tmp_path}/objects"), threading.Event()
    pushing = threading.Thread(target=push, args=[artifact.path, remote], kwargs={"waiting": lambda line: waits.set()})
    with remote_lease.leased(remote, lease_of("teacher", KEY), "geomim run"):
        pushing.start()
        assert waits.wait(20)
        with locked(artifact.path, "geomim run", patient=False):
            pass
    pushing.join(20)
    assert manifest_there(remote, "teacher", KEY) == artifact.finished()


def test_an_object_that_another_wrote_meanwhile_is_said(artifact, bucket):
    remote = Remote(bucket)

    def disturbed(name):
        if name == "gate.json":
            remote.put(f"{PLACE}/{name}", b'{"seed": 9}')

    with pytest.raises(DataError, match=r"gate\.json: is not what was sent: somebody else writes there"):
        push(artifact.path, remote, sent=disturbed)
    assert manifest_there(remote, "teacher", KEY) is None


def test_damage_there_is_one_sentence_and_force_mends_it(artifact, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_module, "PAUSES", (0.0,) * 3)
    remote = Remote(bucket)
    push(artifact.path, remote)
    remote.put(f"{PLACE}/gate.json", b'{"seed": 9}')
    with pytest.raises(DataError, match=rf"^{bucket}/{PLACE}/gate.json: has other bytes .* `geomim push --force` "):
        pull(remote, "teacher", KEY, tmp_path / "b")
    assert not Artifact(tmp_path / "b", "teacher", KEY).has_manifest()
    push(artifact.path, remote, again=True)
    remote.put(f"{PLACE}/{MANIFEST}", b"{")
    with pytest.raises(DataError, match=rf"^{bucket}/{PLACE}/manifest.json: is not what was written .*--force"):
        pull(remote, "teacher", KEY, tmp_path / "b")
    push(artifact.path, remote, again=True)
    same(artifact.path, pull(remote, "teacher", KEY, tmp_path / "b")[0].path)


def test_objects_that_were_deleted_are_sent_again(artifact, bucket, tmp_path):
    remote = Remote(bucket)
    push(artifact.path, remote)
    remote.delete(f"{PLACE}/gate.json")
    assert push(artifact.path, remote)[1] == (artifact.path / "gate.json").stat().st_size
    same(artifact.path, pull(remote, "teacher", KEY, tmp_path / "b")[0].path)


def test_damage_here_is_not_sent(artifact, bucket):
    (artifact.path / "gate.json").write_text('{"seed": 9}')
    with pytest.raises(Damaged, match=r"gate\.json: is not what was written; `geomim repair"):
        push(artifact.path, Remote(bucket))
    assert manifest_there(Remote(bucket), "teacher", KEY) is None


def test_what_is_not_there_is_said(bucket, tmp_path):
    with pytest.raises(UserError, match=rf"^{bucket}/{PLACE}: there is no finished artifact; `geomim push` sends one"):
        pull(Remote(bucket), "teacher", KEY, tmp_path)
    with pytest.raises(ValueError, match="holds no finished artifact"):
        push(tmp_path, Remote(bucket))
