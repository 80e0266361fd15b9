"""What an object root says of parts: who lives, who does not, and when that can be told."""

import os
import time

import pytest

from common.errors import DataError
from object_roots import bucket, remote, s3
from storage.leases import MACHINE
from storage.remote_parts import WORKER, RemoteParts, remove_parts, wait_for_parts
from storage.sent_parts import packed

__all__ = ["bucket", "remote", "s3"]

STAGE, KEY = "depth", "0123456789abcdef" * 4
OTHER = {"machine": "another", "host": "node7", "pid": 1, "what": "geomim depth"}


def put(remote, name, **content):
    remote.put(f"{STAGE}/.{KEY[:16]}.parts/{name}", packed(content))


def test_a_worker_that_is_not_there_is_dead_as_soon_as_that_is_sure(remote):
    there = RemoteParts(remote, STAGE, KEY, seconds=60)
    there.look()
    put(remote, f"{WORKER}a", count=1)
    put(remote, "0", worker=f"{WORKER}a", **OTHER)
    put(remote, "1", worker=f"{WORKER}b", **OTHER)
    put(remote, "2", free="x")
    there.look()
    assert sorted(there.held()) == ["0", "1"]  # b may have come after the workers were listed
    assert there.holder("0") == "`geomim depth` (process 1 on node7)"
    there.look()
    assert there.held() == ["0"]
    put(remote, "1", worker=f"{WORKER}a", **OTHER)
    there.look()
    assert sorted(there.held()) == ["0", "1"]


def test_a_worker_of_which_nothing_is_heard_is_dead(remote):
    there, other = RemoteParts(remote, STAGE, KEY, seconds=0.5), RemoteParts(remote, STAGE, KEY, seconds=60)
    put(remote, f"{WORKER}a", count=0)
    put(remote, "0", worker=f"{WORKER}a", **OTHER)
    for count in range(1, 4):
        there.look()
        assert there.held() == ["0"]
        time.sleep(0.3)
        put(remote, f"{WORKER}a", count=count)
    there.look()
    time.sleep(0.6)
    assert there.held() == ["0"]  # it may have been heard of since
    there.look()
    assert there.held() == []
    other.look()
    assert other.held() == ["0"]


def test_a_process_of_this_machine_that_is_gone_is_dead_at_once(remote):
    there = RemoteParts(remote, STAGE, KEY)
    put(remote, f"{WORKER}a", count=0)
    put(remote, "0", worker=f"{WORKER}a", **OTHER | {"machine": MACHINE, "pid": 2**22 + 1})
    put(remote, "1", worker=f"{WORKER}a", **OTHER | {"machine": MACHINE, "pid": os.getpid()})
    there.look()
    assert there.held() == ["1"]


def test_nobody_waits_for_what_nobody_writes(remote):
    wait_for_parts(remote, STAGE, KEY)
    put(remote, "0", free="x")
    wait_for_parts(remote, STAGE, KEY)
    remove_parts(remote, STAGE, KEY)
    assert remote.objects(f"{STAGE}/.{KEY[:16]}.parts") == {}


def test_an_object_of_other_bytes_is_one_sentence(remote):
    remote.put(f"{STAGE}/.{KEY[:16]}.parts/0", b"noise")
    with pytest.raises(DataError, match=r"parts/0: is not what was written; delete it, and run the same command again"):
        RemoteParts(remote, STAGE, KEY).look()
