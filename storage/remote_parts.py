"""What machines say to each other of an artifact's parts, in an object root.

    STAGE/.KEY16.parts/PART        who writes it; when it is there, instead, what it is (storage/sent_parts.py)
    STAGE/.KEY16.parts/sizes       how many samples a part has, store by store
    STAGE/.KEY16.parts/worker-ID   of a process that writes parts, which rewrites it all the time: what it took is its
                                   own until that ends

One listing tells what has changed, and what has changed is read. Whether a worker is there says the next listing alone,
which begins after its part was read.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.errors import DataError
from storage.at_once import all_at_once
from storage.leases import MACHINE, in_words, process_lives
from storage.places import parts_of
from storage.remote import Remote, bare
from storage.remote_lease import SECONDS_BETWEEN_LOOKS, seconds_to_live
from storage.sent_parts import SentPart, unpacked
from storage.waiting import Waiting

SIZES, WORKER = "sizes", "worker-"
TRIES = 3


@dataclass(frozen=True)
class Seen:
    """A part's object, as it was read."""

    content: dict[str, Any]
    etag: str  # as `put_over` takes it

    @property
    def done(self) -> SentPart | None:
        """The part, where it is there."""
        return SentPart.from_json(self.content["done"]) if "done" in self.content else None


class RemoteParts:
    """As of the last look."""

    def __init__(self, remote: Remote, stage: str, key: str, seconds: float | None = None):
        """seconds: without a sign of its life, and what a worker had is anybody's."""
        self.folder = parts_of(stage, key)
        self._remote, self._seconds = remote, seconds_to_live(seconds)
        self._listed: dict[str, str] = {}  # part -> bare etag
        self._read: dict[str, Seen] = {}
        self._new: set[str] = set()  # what the last look read
        self._workers: dict[str, tuple[str, float]] = {}  # name -> bare etag, and when it was first seen
        self._looked = 0.0

    def look(self) -> None:
        before = time.monotonic()
        found, now = self._remote.objects(self.folder), time.monotonic()
        self._looked = before
        self._listed = {name: object.etag for name, object in found.items() if name.isdigit()}
        workers = {name: object.etag for name, object in found.items() if name.startswith(WORKER)}
        seen = self._workers
        self._workers = {n: seen[n] if n in seen and seen[n][0] == etag else (etag, now) for n, etag in workers.items()}
        known = {name: seen for name, seen in self._read.items() if name in self._listed}
        changed = [n for n, etag in self._listed.items() if n not in known or bare(known[n].etag) != etag]
        self._read = known | {n: seen for n, seen in zip(changed, all_at_once(self._seen, changed)) if seen}
        self._new = set(changed)

    def wrote(self, name: str, content: dict[str, Any], etag: str) -> None:
        """Know what this process itself has put there."""
        self._read[name] = Seen(content, etag)

    def done(self) -> dict[str, Seen]:
        """The parts that are there."""
        return {name: seen for name, seen in self._read.items() if "done" in seen.content}

    def held(self) -> list[str]:
        """The parts that somebody writes who lives."""
        return [name for name in self._listed if self.is_held(name)]

    def is_held(self, name: str) -> bool:
        if name not in self._listed:
            return False
        seen = self._read.get(name)
        if seen is None or bare(seen.etag) != self._listed[name]:  # it was written since: the next look will tell
            return True
        return "worker" in seen.content and self._lives(seen.content, name in self._new)

    def seen(self, name: str) -> Seen | None:
        """What there is of a part, None where nobody has begun it."""
        return self._read.get(name)

    def holder(self, name: str) -> str:
        """Who writes a part, in words."""
        seen = self._read.get(name)
        return in_words(seen.content if seen else {})

    def _lives(self, owner: dict[str, Any], new: bool) -> bool:
        if owner["machine"] == MACHINE and not process_lives(owner["pid"]):
            return False
        worker = self._workers.get(owner["worker"])
        return new or (worker is not None and self._looked - worker[1] < self._seconds)

    def _seen(self, name: str) -> Seen | None:
        there = read(self._remote, f"{self.folder}/{name}")
        return there and Seen(*there)


def read(remote: Remote, name: str) -> tuple[dict[str, Any], str] | None:
    """What a packed object holds, and its etag; None where there is none. Raises DataError where it does not read."""
    for _ in range(TRIES):
        if (there := remote.get(name)) is None:
            return None
        try:
            return unpacked(there[0]), there[1]
        except ValueError:  # on its way, perhaps
            continue
    raise DataError(f"{remote.url}/{name}: is not what was written; delete it, and run the same command again")


def wait_for_parts(remote: Remote, stage: str, key: str, waiting: Callable[[str], None] = lambda line: None) -> None:
    """Until nobody writes a part of an artifact. For who has it alone (its lease): then nobody takes another one."""
    there, wait = RemoteParts(remote, stage, key), Waiting(waiting, SECONDS_BETWEEN_LOOKS)
    there.look()
    while held := there.held():
        wait.a_while(lambda: there.holder(held[0]))
        there.look()


def remove_parts(remote: Remote, stage: str, key: str) -> None:
    """Once the artifact is there, or is to be made from the beginning. For who has it alone, and nobody writes."""
    folder = parts_of(stage, key)
    all_at_once(remote.delete, [f"{folder}/{name}" for name in remote.objects(folder)])
