"""Who writes which part of an artifact, among machines that meet in an object root alone: `Leases` on objects.

Each machine writes into its mirror. A part that is written is sent by its writer, shard by shard; then what the writer
put there when it took the part gives way to what the part is, and the others count it as done. Every put is one that
only the lease's holder can win: a new object, or one in place of the very one that was seen. So whoever was taken for
dead and is not finds another's object in the way, at whatever instant it wakes up, and never writes over it.

A process has one worker's object, which it rewrites all the time, for all parts that it took (storage/remote_parts.py).
Whoever has seen that unchanged for SECONDS_TO_LIVE, by a clock of its own, takes them over, one by one. A worker that
comes back from so long a sleep is another one: all that it had is lost.

While somebody has the artifact alone (to finish it, to send it whole, to begin it again), parts are not taken: who has
done so that instant finds the artifact's lease another than before, and looks at all of it anew (`Changed`).
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.errors import FileSystemError, UserError
from storage.artifact import Artifact
from storage.at_once import all_at_once
from storage.checksum import FileSum
from storage.leases import FINISH, Changed, LeaseLost, PartLease, this_process
from storage.manifest import MANIFEST, is_shard
from storage.mirror import Mirror
from storage.places import lease_of, place_of
from storage.remote import bare, remote_at
from storage.remote_lease import RENEWALS, SECONDS_BETWEEN_LOOKS, RemoteLease, seconds_to_live
from storage.remote_parts import SIZES, WORKER, RemoteParts, read
from storage.sent_parts import SentPart, SentShard, noted, packed, put_down, take_up
from storage.waiting import Waiting


@dataclass(frozen=True)
class RemotePartLease:
    """A part that was taken; for processes that write it for its holder, too."""

    url: str
    object: str
    worker: str

    @property
    def name(self) -> str:
        return self.object.rpartition("/")[2]

    def check(self) -> None:
        """Raise LeaseLost where it is another's by now: one request."""
        there = read(remote_at(self.url), self.object)
        if there is None or there[0].get("worker") != self.worker:
            raise _lost(self.url, self.object)


class RemoteLeases:
    """Those of an artifact's parts, and those of them that this process holds, until it leaves the `with` block."""

    def __init__(
        self,
        mirror: Mirror,
        artifact: Artifact,
        what: str,
        waiting: Callable[[str], None] = lambda line: None,
        seconds: float | None = None,
    ):
        """what, waiting, seconds: as of `leased`."""
        self._mirror, self._remote, self._artifact, self._waiting = mirror, mirror.remote, artifact, waiting
        self._place = place_of(artifact.stage, artifact.key)
        self._parts = RemoteParts(self._remote, artifact.stage, artifact.key, seconds)
        self._alone = RemoteLease(self._remote, lease_of(artifact.stage, artifact.key), what, seconds)
        self._owner, self._seconds = this_process(what), seconds_to_live(seconds)
        self._sizes: dict[str, int] = {}
        self._held: dict[str, tuple[str, str]] = {}  # part -> etag of its object, and the worker that took it
        self._over: set[str] = set()  # those of them that another had before
        self._done: dict[str, str] = {}  # part -> etag of what was put down here
        self._next_look = 0.0
        self._worker, self._count, self._renewed = "", 0, 0.0
        self._ended, self._stack = threading.Event(), ExitStack()
        self._thread = threading.Thread(target=self._keep_renewing, name="leases", daemon=True)

    def __enter__(self) -> "RemoteLeases":
        """Wait until nobody has the artifact alone. Raises Changed where it is finished then."""
        wait = Waiting(self._waiting, SECONDS_BETWEEN_LOOKS)
        while (left := self._alone.left()) is None:
            wait.a_while(lambda: self._alone.holder)
        self._left = left
        self._not_finished()
        self._renew()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all: a worker that is gone has nothing."""
        self._ended.set()
        self._stack.close()
        self._thread.join()
        with contextlib.suppress(FileSystemError, UserError):
            self._remote.delete(f"{self._parts.folder}/{self._worker}")

    def agree(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        name = f"{self._parts.folder}/{SIZES}"
        if self._remote.put_new(name, packed(self._sizes)) is not None:
            return
        if (there := read(self._remote, name)) is None:
            raise Changed("its parts were removed")
        if there[0] == self._sizes:
            return
        others, mine = (", ".join(f"{store} {n}" for store, n in of.items()) for of in (there[0], self._sizes))
        raise UserError(
            f"{self._remote.url}/{self._place}: is being made in parts of other sizes (samples: {others}) than those "
            f"of {self._artifact.path} ({mine}): set the size there, and remove this folder"
        )

    def look(self) -> None:
        if time.monotonic() >= self._next_look:
            self._look()

    def has(self, name: str) -> bool:
        return name in self._done

    def claim(self, names: Iterable[str]) -> PartLease | None:
        names = list(names)
        if names == [FINISH]:
            return self._claim_alone()
        for name in names:
            if name in self._held or self._is_done(name) or (self._parts.is_held(name) and not self._is_mine(name)):
                continue
            if (lease := self._taken(name)) is not None:
                return lease
            self._look()  # somebody was sooner, and may have taken more
        return None

    def keep(self, name: str, files: Sequence[Path]) -> None:
        part = self._sent(name, {path.relative_to(self._artifact.path).as_posix(): path for path in files})
        content = {"done": part.as_json(), "id": uuid.uuid4().hex}
        self._check(name)
        etag = self._remote.put_over(f"{self._parts.folder}/{name}", packed(content), self._held[name][0])
        if etag is None:
            raise _lost(self._remote.url, f"{self._parts.folder}/{name}")
        self._drop(name)
        self._parts.wrote(name, content, etag)
        put_down(self._artifact.path, name, part)
        self._done[name] = bare(etag)

    def release(self, name: str) -> None:
        etag, _ = self._drop(name)
        self._done.pop(name, None)  # who lost it may have written over another's files here: they are compared again
        content = {"free": uuid.uuid4().hex}
        with contextlib.suppress(FileSystemError, UserError):  # it ends by itself
            if put := self._remote.put_over(f"{self._parts.folder}/{name}", packed(content), etag):
                self._parts.wrote(name, content, put)

    def taken_over(self) -> set[str]:
        return set(self._over)

    def holder(self, name: str) -> str:
        return self._alone.holder if name == FINISH else self._parts.holder(name)

    def finished(self) -> None:
        self._mirror.send(self._artifact, self._alone)

    # --- taking -------------------------------------------------------------------------------------------------------

    def _taken(self, name: str) -> PartLease | None:
        seen, worker, object = self._parts.seen(name), self._worker, f"{self._parts.folder}/{name}"
        content = self._owner | {"worker": worker, "id": uuid.uuid4().hex}
        data = packed(content)
        put = self._remote.put_over(object, data, seen.etag) if seen else self._remote.put_new(object, data)
        if put is None:
            return None
        self._held[name] = put, worker
        self._parts.wrote(name, content, put)
        if seen is not None and "worker" in seen.content:
            self._over.add(name)
        if bare(self._remote.etag(self._alone.name)) != self._left:
            self.release(name)
            raise Changed("another process has had the artifact alone meanwhile")
        return RemotePartLease(self._remote.url, object, worker)

    def _is_done(self, name: str) -> bool:
        return (seen := self._parts.seen(name)) is not None and "done" in seen.content

    def _is_mine(self, name: str) -> bool:
        """Whether this process took it, and never heard that it did."""
        return (seen := self._parts.seen(name)) is not None and seen.content.get("worker") == self._worker

    def _claim_alone(self) -> PartLease | None:
        """Whoever has it when all parts are done finishes the artifact."""
        if not self._alone.try_take():
            return None
        self._stack.enter_context(self._alone.renewed())
        self._not_finished()
        self._look()
        return self._alone

    def _not_finished(self) -> None:
        if self._remote.etag(f"{self._place}/{MANIFEST}"):
            raise Changed("another process has finished the artifact")

    # --- parts --------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        here = noted(self._artifact.path)  # before the listing, which has all of these
        self._parts.look()
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        done = self._parts.done()
        if self._artifact.has_manifest():
            raise Changed("another process has finished the artifact")
        for name in here - done.keys():  # they were removed, for all to be made again
            take_up(self._artifact.path, name)
        for name, seen in done.items():
            part = seen.done
            if name in here and self._done.get(name) == bare(seen.etag):
                continue
            if part is None or part.sizes != self._sizes:
                raise Changed("its parts are others by now")
            put_down(self._artifact.path, name, part)
            self._done[name] = bare(seen.etag)
        if gone := self._done.keys() - done.keys():
            raise Changed(f"{len(gone)} of its parts were removed")

    def _sent(self, name: str, files: Mapping[str, Path]) -> SentPart:
        """Send the shards of a part."""

        def send(file: str) -> SentShard:
            data, total = files[file].read_bytes(), FileSum()
            total.add(data)
            return SentShard(len(data), str(total), bare(self._put(name, f"{self._place}/{file}", data)))

        shards = [file for file in files if is_shard(file)]
        small = {file: path.read_bytes() for file, path in files.items() if file not in shards}
        return SentPart(self._sizes, dict(zip(shards, all_at_once(send, shards))), small)

    def _put(self, name: str, object: str, data: bytes) -> str:
        """The etag of these bytes, put in place of what a holder before left, or of nothing."""
        self._check(name)
        etag = self._remote.put_new(object, data)
        while etag is None:
            self._check(name)
            there = self._remote.get(object)
            etag = self._remote.put_over(object, data, there[1]) if there else self._remote.put_new(object, data)
        return etag

    # --- the worker ---------------------------------------------------------------------------------------------------

    def _check(self, name: str) -> None:
        _, worker = self._held[name]
        if worker != self._worker or time.monotonic() - self._renewed > self._seconds:
            raise _lost(self._remote.url, f"{self._parts.folder}/{name}")

    def _drop(self, name: str) -> tuple[str, str]:
        self._over.discard(name)
        return self._held.pop(name)

    def _renew(self) -> None:
        before, worker = time.monotonic(), self._worker
        if not worker or before - self._renewed > self._seconds:  # others may have taken it for dead
            worker = f"{WORKER}{uuid.uuid4().hex}"
        self._count += 1
        self._remote.put(f"{self._parts.folder}/{worker}", packed(self._owner | {"count": self._count}))
        self._worker, self._renewed = worker, before

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            with contextlib.suppress(FileSystemError, UserError):  # the next one may come through
                self._renew()


def _lost(url: str, object: str) -> LeaseLost:
    return LeaseLost(f"{url}/{object}: another process has taken this work over")
