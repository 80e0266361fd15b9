"""Who works on an artifact of an object root, among machines: a lease, an object that its holder rewrites all the time.

Taken by a put that only one can win; renewed, with a number that counts up, by a put in place of the very object that
the holder wrote before. Whoever has seen it unchanged for SECONDS_TO_LIVE, by a clock of its own (those of machines
need not agree), puts its own in place of that one; a process of the same machine that is gone is not waited for. Who
was taken for dead and is not finds the other's object in the way of its next one.

An object cannot be deleted on a condition: one that was let go stays, and says so.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.errors import FileSystemError, UserError
from storage.leases import MACHINE, process_lives
from storage.remote import Remote

SECONDS_TO_LIVE = 60.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 60.0


class RemoteLease:
    """One that this process holds, while its `with` block lasts."""

    def __init__(self, remote: Remote, name: str, what: str, seconds: float):
        self._remote, self._name, self._seconds = remote, name, seconds
        owner = {"machine": MACHINE, "host": socket.gethostname(), "pid": os.getpid(), "what": what}
        self._owner = owner | {"id": uuid.uuid4().hex}
        self._count, self._etag, self._renewed = 0, "", 0.0
        self._ended = threading.Event()

    def check(self) -> None:
        """Raise FileSystemError where another may have taken this process for dead. For before each step that shows."""
        if time.monotonic() - self._renewed > self._seconds or not self._etag:
            raise FileSystemError(
                f"{self._remote.url}/{self._name}: was not renewed for {self._seconds:.0f} s, so another process may "
                "have taken the work over; the same command goes on from there"
            )

    def take(self, over: str | None) -> bool:
        """Take it, in place of the object of that etag or of none; whether that worked."""
        before, content = time.monotonic(), self._content()
        put = self._remote.put_over(self._name, content, over) if over else self._remote.put_new(self._name, content)
        self._etag, self._renewed = put or "", before
        return put is not None

    def renew(self) -> None:
        """Until it is let go, or lost."""
        while not self._ended.wait(self._seconds / 6):
            with contextlib.suppress(FileSystemError, UserError):  # the next one may come through
                if not self.take(self._etag):
                    return

    def let_go(self) -> None:
        """Say that nobody need wait."""
        with contextlib.suppress(FileSystemError, UserError):
            if self._etag:
                self._remote.put_over(self._name, json.dumps({"free": uuid.uuid4().hex}).encode(), self._etag)

    def _content(self) -> bytes:
        self._count += 1
        return json.dumps(self._owner | {"count": self._count}).encode()


@contextmanager
def leased(
    remote: Remote,
    name: str,
    what: str,
    waiting: Callable[[str], None] = lambda line: None,
    seconds: float | None = None,
) -> Iterator[RemoteLease]:
    """Hold the lease of that name inside; wait for it first, as long as it takes.

    what: for those who wait meanwhile, such as "geomim pretrain". waiting: called with a sentence about the holder when
    waiting begins, and now and then. seconds: without a renewal, and a lease has ended.
    """
    seconds = SECONDS_TO_LIVE if seconds is None else seconds
    lease = RemoteLease(remote, name, what, seconds)
    seen, since, next_line = "", time.monotonic(), time.monotonic()
    while True:
        there = remote.get(name)
        if there is None:
            if lease.take(None):
                break
            continue
        content, etag = there
        now, owner = time.monotonic(), _owner(content)
        if etag != seen:
            seen, since = etag, now
        if (_is_free(owner) or now - since > seconds) and lease.take(etag):
            break
        if now >= next_line:
            waiting(f"waiting for {_in_words(owner)}")
            next_line = now + SECONDS_BETWEEN_LINES
        time.sleep(min(SECONDS_BETWEEN_LOOKS, seconds / 6))
    renewing = threading.Thread(target=lease.renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        lease._ended.set()
        renewing.join()
        lease.let_go()


def _owner(content: bytes) -> dict:
    try:
        owner = json.loads(content)
        return owner if isinstance(owner, dict) else {}
    except ValueError:
        return {}


def _is_free(owner: dict) -> bool:
    """Whether it was let go, or its holder was a process of this machine that is gone."""
    pid = owner.get("pid")
    return "free" in owner or (owner.get("machine") == MACHINE and isinstance(pid, int) and not process_lives(pid))


def _in_words(owner: dict) -> str:
    if "what" not in owner:
        return "another process"
    return f"`{owner['what']}` (process {owner.get('pid')} on {owner.get('host')})"
