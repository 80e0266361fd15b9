"""Leases on objects: one holder at a time, and none that is dead."""

import time

import pytest

from common.errors import FileSystemError
from object_roots import at_once, bucket, remote, s3
from storage.remote_lease import RemoteLease, leased

__all__ = ["bucket", "remote", "s3"]


def test_one_at_a_time_holds_a_lease(remote):
    inside, most = [], []

    def work(number):
        with leased(remote, "depth/.k.lease", "a test", seconds=6):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    at_once(work, 4)
    assert most == [1, 1, 1, 1]


def test_a_lease_that_nobody_renews_is_taken_over(remote, monkeypatch):
    """By one who has seen it unchanged for as long; the first holder is told, and cannot renew."""
    lost = RemoteLease(remote, "k", "geomim depth", seconds=0.6)
    assert lost.take(None)
    lost.check()
    waits, began = [], time.monotonic()
    with leased(remote, "k", "another", waits.append, seconds=0.6) as lease:
        assert time.monotonic() - began >= 0.6
        assert "waiting for `geomim depth` (process" in waits[0]
        lost.renew()
        with pytest.raises(FileSystemError, match=r"was not renewed for .* the same command goes on"):
            lost.check()
        lease.check()


def test_a_lease_that_is_renewed_is_kept(remote):
    with leased(remote, "k", "a test", seconds=0.6) as lease:
        first = remote.get("k")
        time.sleep(1.2)
        lease.check()
        assert remote.get("k") != first


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(remote, monkeypatch):
    held = RemoteLease(remote, "k", "killed", seconds=600)
    held._owner |= {"pid": 2**22 + 1}
    assert held.take(None)
    began = time.monotonic()
    with leased(remote, "k", "a test", seconds=600):
        assert time.monotonic() - began < 5
