"""Who works on an artifact of an object root, among machines: a lease, an object that its holder rewrites all the time.

Taken by a put that only one can win; renewed, with a number that counts up, by a put in place of the very object that
the holder wrote before. Whoever has seen it unchanged for SECONDS_TO_LIVE, by a clock of its own (those of machines
need not agree), puts its own in place of that one; a process of the same machine that is gone is not waited for. Who
was taken for dead and is not finds the other's object in the way of its next one.

An object cannot be deleted on a condition: one that was let go stays, and says so.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.errors import FileSystemError, UserError
from storage.leases import MACHINE, SECONDS_TO_LIVE, in_words, process_lives, this_process
from storage.remote import Remote, bare
from storage.waiting import Waiting

RENEWALS = 6  # in that time:
SECONDS_BETWEEN_LOOKS = 1.0


class RemoteLease:
    """One of an object root's: looked at, and held by this process from `try_take` to the end of `renewed`."""

    def __init__(self, remote: Remote, name: str, what: str, seconds: float | None = None):
        """what: for those who wait, such as "geomim pretrain". seconds: without a renewal, and the lease has ended."""
        self.name = name
        self._remote, self._seconds = remote, seconds_to_live(seconds)
        self._owner = this_process(what) | {"id": uuid.uuid4().hex}
        self._count, self._etag, self._renewed = 0, "", 0.0
        self._seen, self._since = "", 0.0  # the etag that was there at the last look, and when it was first seen
        self._ended = threading.Event()
        self.holder = ""  # who had it at the last look, in words; "" where it was let go

    def check(self) -> None:
        """Raise FileSystemError where another may have taken this process for dead. For before each step that shows."""
        if time.monotonic() - self._renewed > self._seconds or not self._etag:
            raise FileSystemError(
                f"{self._remote.url}/{self.name}: was not renewed for {self._seconds:.0f} s, so another process may "
                "have taken the work over; the same command goes on from there"
            )

    def try_take(self) -> bool:
        """Take it, if nobody holds it; whether that worked."""
        etag = self._unheld()
        return etag is not None and self.take(etag)

    def left(self) -> str | None:
        """The bare etag of what who had it last left, "" where nobody had; None where somebody holds it.

        Who held it and is dead finds from now on that it was lost.
        """
        etag = self._unheld()
        if etag and self.holder:
            etag = self._remote.put_over(self.name, _free(), etag)
        return None if etag is None else bare(etag)

    def take(self, over: str | None) -> bool:
        """Take it, in place of the object of that etag or of none; whether that worked."""
        before, content = time.monotonic(), self._content()
        put = self._remote.put_over(self.name, content, over) if over else self._remote.put_new(self.name, content)
        self._etag, self._renewed = put or "", before
        return put is not None

    def renew(self) -> None:
        """Until it is let go, or lost."""
        while not self._ended.wait(self._seconds / RENEWALS):
            with contextlib.suppress(FileSystemError, UserError):  # the next one may come through
                if not self.take(self._etag):
                    return

    @contextmanager
    def renewed(self) -> "Iterator[RemoteLease]":
        """Hold inside what was taken; then nobody need wait."""
        renewing = threading.Thread(target=self.renew, name="lease", daemon=True)
        renewing.start()
        try:
            yield self
        finally:
            self._ended.set()
            renewing.join()
            with contextlib.suppress(FileSystemError, UserError):
                if self._etag:
                    self._remote.put_over(self.name, _free(), self._etag)

    def _unheld(self) -> str | None:
        """The etag of what is there, "" where nothing is; None where somebody holds it who lives."""
        there = self._remote.get(self.name)
        if there is None:
            return ""
        content, etag = there
        now, owner = time.monotonic(), _owner(content)
        if etag != self._seen:
            self._seen, self._since = etag, now
        self.holder = "" if "free" in owner else in_words(owner)
        pid = owner.get("pid")
        gone = owner.get("machine") == MACHINE and isinstance(pid, int) and not process_lives(pid)
        return etag if "free" in owner or gone or now - self._since > self._seconds else None

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
    """Hold the lease of that name inside; wait for it first, as long as it takes. what, seconds: as of `RemoteLease`.

    waiting: called with a sentence about the holder when waiting begins, and now and then.
    """
    lease = RemoteLease(remote, name, what, seconds)
    wait = Waiting(waiting, min(SECONDS_BETWEEN_LOOKS, seconds_to_live(seconds) / RENEWALS))
    while not lease.try_take():
        wait.a_while(lambda: lease.holder)
    with lease.renewed():
        yield lease


def seconds_to_live(seconds: float | None) -> float:
    """What was given, else what all processes take."""
    return SECONDS_TO_LIVE if seconds is None else seconds


def _free() -> bytes:
    return json.dumps({"free": uuid.uuid4().hex}).encode()


def _owner(content: bytes) -> dict:
    try:
        owner = json.loads(content)
        return owner if isinstance(owner, dict) else {}
    except ValueError:
        return {}
