"""Ranks that a launcher started, on one machine or several: how they meet, talk and end together.

They share a key-value store, torchrun's or one that rank 0 keeps at MASTER_ADDR:MASTER_PORT. Whoever fails says there
why; rank 0 tells the user, and all end. A thread of every rank looks for that each second, since the rank itself may
wait in a collective operation for one that has gone.
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import sys
import threading
import time
import uuid
from datetime import timedelta
from typing import Any, NoReturn

from torch import distributed

from common.errors import StageFailed
from common.launcher import Launched

TO_MEET = timedelta(minutes=30)  # machines of a cluster do not start at the same time
FOREVER = timedelta(days=365)  # rank 0 may wait for another run's lock; who waits in vain is ended
SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_AT_SILENCE = 120  # then a rank's machine has gone without a word; looks, not time: a job may be suspended
SECONDS_BETWEEN_TRIES = 0.05
SECONDS_TO_TELL = 10.0
SECONDS_TO_LEAVE = 3.0
SECONDS_TO_COME = 60.0  # to the end of all, where nothing failed: a rank may be swapped out or suspended

_joined: "Rendezvous | None" = None


class Rendezvous:
    """All launched ranks, as one of them sees them. Raises StageFailed where they do not meet."""

    def __init__(self, place: Launched):
        self.place = place
        try:
            store: Any  # torch's stubs lack `clone`
            store, _, _ = next(distributed.rendezvous("env://", place.rank, place.count, timeout=TO_MEET))
            store = distributed.PrefixStore(_name_of_start(store, place), store)
        except (distributed.DistError, RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise StageFailed(
                f"rank {place.rank} of {place.count} on {socket.gethostname()} does not meet the others at {where} "
                f"(MASTER_ADDR:MASTER_PORT): {str(error).splitlines()[0]}"
            ) from None
        store.set_timeout(FOREVER)
        self.store = store
        self.given = 0  # pieces of work until now
        self._over, self._ending = threading.Event(), threading.Lock()
        watching = (store.clone(), os.getppid())
        threading.Thread(target=self._watch, args=watching, name="watch-ranks", daemon=True).start()
        global _joined
        _joined = self

    def tell(self, name: str, value: Any) -> None:
        """Leave a value, which pickles, for those who ask for its name."""
        self.store.set(name, pickle.dumps(value))

    def hear(self, name: str) -> Any:
        """The value of that name; waits for it."""
        return pickle.loads(self.store.get(name))

    def give(self, work: Any) -> None:
        """What all ranks are to do next; None: nothing more. Called on rank 0."""
        self.tell(f"work {self.given}", work)
        self.given += 1

    def take(self) -> Any:
        """What rank 0 gave next."""
        self.given += 1
        return self.hear(f"work {self.given - 1}")

    def fail(self, sentence: str, code: int) -> NoReturn:
        """End all ranks with an exit code. The first who calls it is heard: rank 0 prints the sentence."""
        place = self.place
        where = f" (rank {place.rank}, on {socket.gethostname()})" if place.rank else ""
        with contextlib.suppress(RuntimeError):
            self.store.compare_set("failed", "", json.dumps([sentence + where, code]))
        self._end(self.store)

    def leave(self) -> None:
        """The end of all that went well: rank 0, who may keep the store, goes last."""
        global _joined
        _joined = None
        self._over.set()
        self.store.add("left", 1)
        if self.place.rank == 0:
            self._wait_until_left(self.store, self.place.count, SECONDS_TO_COME)

    def _watch(self, store: Any, parent: int) -> None:
        rank = self.place.rank
        heard = dict.fromkeys(range(1, self.place.count), (0, 0)) if rank == 0 else {}  # (beats, looks in vain)
        try:
            while not self._over.wait(SECONDS_BETWEEN_LOOKS):
                if os.getppid() != parent:  # a launcher that was killed ends nobody
                    os.kill(os.getpid(), signal.SIGKILL)
                if store.check(["failed"]):
                    self._end(store)
                store.add(f"beat {rank}", 1)
                for other, (before, in_vain) in heard.items():
                    beats = store.add(f"beat {other}", 0)
                    heard[other] = beats, in_vain + 1 if beats == before > 0 else 0
                    if in_vain == LOOKS_AT_SILENCE:
                        lost = f"rank {other} of {self.place.count} has gone without a word"
                        store.compare_set("failed", "", json.dumps([f"{lost}; the same command goes on from there", 1]))
        except RuntimeError:  # who kept the store has gone
            if not self._over.is_set():
                os._exit(1)

    def _end(self, store: Any) -> NoReturn:
        with self._ending:  # kept: of two threads the other waits for the end
            sentence, code = "", 1
            try:
                sentence, code = json.loads(store.get("failed"))
                if self.place.rank == 0:
                    self._print(sentence)
                    store.set("told", "")
                    self._wait_until_left(store, self.place.count - 1, SECONDS_TO_LEAVE)
                else:
                    store.wait(["told"], timedelta(seconds=SECONDS_TO_TELL))
                    store.add("left", 1)
            except RuntimeError:  # rank 0 has gone
                if sentence:
                    self._print(sentence)
            os._exit(code)

    def _print(self, sentence: str) -> None:
        sys.stdout.flush()
        print(f"geomim: {sentence}", file=sys.stderr, flush=True)

    def _wait_until_left(self, store: Any, count: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while store.add("left", 0) < count and time.monotonic() < deadline:
            time.sleep(0.02)


def _name_of_start(store: distributed.Store, place: Launched) -> str:
    """What all ranks of this start call it.

    torchrun has one store for all its starts, in which an earlier one's words would pass for this one's. So every rank
    makes up a name, and rank 0 says its own beside those that it has read, over and over: who finds its name there
    hears no earlier rank 0, and says so.
    """
    mine, others = uuid.uuid4().hex, range(1, place.count)
    deadline = time.monotonic() + TO_MEET.total_seconds()
    store.set(f"name {place.rank}", mine)
    while time.monotonic() < deadline:
        if place.rank == 0:
            store.set("start", json.dumps([mine, [_read(store, f"name {other}") for other in others]]))
            if all(_read(store, f"start of {other}") == mine for other in others):
                return mine
        else:
            start, names = json.loads(_read(store, "start") or '["", []]')
            if mine in names:
                store.set(f"start of {place.rank}", start)
                return start
        time.sleep(SECONDS_BETWEEN_TRIES)
    raise RuntimeError(f"not all of them came within {TO_MEET}")


def _read(store: distributed.Store, name: str) -> str | None:
    return store.get(name).decode() if store.check([name]) else None


def joined() -> Rendezvous | None:
    """The ranks that this process is one of; None where it is one that no launcher started."""
    return _joined
