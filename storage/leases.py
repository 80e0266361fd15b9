"""Who works on what, among processes of several machines on one root: leases, which end by themselves.

    FOLDER/NAME.0, NAME.1, ...    a file each, made by who takes the work; the last one counts

To take a lease is to make the next file, which of several processes one alone can. Its holder touches it again and
again. Whoever has seen it untouched for SECONDS_TO_LIVE, by a clock of its own (those of machines need not agree),
takes the next one; a process of the same machine that is gone is not waited for. A holder that was taken for dead and
is not finds the next file there (`Lease.check`) and drops what it has not moved to its place yet.

Locks (storage/lock.py) end sooner, with their process; but not every file system keeps them between machines. On an
object root storage/remote_leases.py does the same: `PartLeases` is what both can do.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

BOOT, CONTAINER = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
FINISH = "finish"  # the lease of who does what follows the parts
RELEASED = {"released": True}
SECONDS_BETWEEN_TOUCHES = 5.0
SECONDS_TO_LIVE = 60.0  # NFS shows another machine's touch up to some seconds late


class LeaseLost(Exception):
    """Somebody else took this process for dead, and its work."""


class Changed(Exception):
    """The work stands otherwise than this process knew: it is to begin with a new look at all of it."""


class PartLease(Protocol):
    """One that was taken. It can be sent to other processes, which work for its holder."""

    @property
    def name(self) -> str: ...

    def check(self) -> None:
        """Raise LeaseLost where it is another's by now. For the last moment before work is moved to its place."""


class PartLeases(Protocol):
    """The leases of one artifact's parts, named by their numbers, and of FINISH; those that this process holds."""

    def agree(self, sizes: Mapping[str, int]) -> None:
        """Say first how many samples a part has, store by store. Raises UserError where others have other parts."""

    def look(self) -> None:
        """Have the flags of parts that others wrote in this process's stores. Raises Changed."""

    def has(self, name: str) -> bool:
        """Whether a part that is flagged here is where all who work on the artifact find it."""

    def claim(self, names: Iterable[str]) -> PartLease | None:
        """The first of these that nobody holds, taken; None where all are held. Raises Changed."""

    def keep(self, name: str, files: Sequence[Path]) -> None:
        """Have a part, which is written and flagged, where all find it, and let go of it. Raises LeaseLost.

        files: all of the part, in the order in which they were written.
        """

    def release(self, name: str) -> None:
        """Let go of one that this process holds."""

    def taken_over(self) -> set[str]:
        """Names of parts that several processes may have written."""

    def holder(self, name: str) -> str:
        """Who holds a lease, in words."""

    def finished(self) -> None:
        """The artifact is finished, under FINISH: have it where all find it; nobody needs its leases any more."""


@dataclass(frozen=True)
class Lease:
    """One that was taken. It can be sent to other processes, which work for its holder."""

    folder: Path
    name: str
    number: int  # how many had it before
    token: str = field(
        default="", compare=False
    )  # this one's own: a folder may have been removed, and another's file stand there now

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.{self.number}"

    def check(self) -> None:
        """Raise LeaseLost where it is another's by now. For the last moment before work is moved to its place."""
        if not self.is_there() or Lease(self.folder, self.name, self.number + 1).path.exists():
            raise LeaseLost(f"{self.path}: another process has taken this work over")

    def is_there(self) -> bool:
        """Whether the file is this lease's, and no other's."""
        try:
            return _owner(self.path.read_bytes()).get("token") == self.token
        except FileNotFoundError:
            return False


class Leases:
    """The leases in a folder, and those of them that this process holds: until it leaves the `with` block, or longer.

    Safe to use from several threads.
    """

    def __init__(self, folder: Path, what: str = "", seconds: float = SECONDS_TO_LIVE):
        """what: for those who look, such as "geomim teacher". seconds: without a touch, and a lease has ended."""
        self.folder, self._what, self._seconds = folder, what, seconds
        self._held: dict[str, Lease] = {}
        self._seen: dict[Path, tuple[int, float]] = {}  # the last touch, and when it was first seen here
        self._lock, self._ended = threading.Lock(), threading.Event()

    def __enter__(self) -> "Leases":
        self.folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._touch, name="leases", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all: others need not wait for what this process leaves undone."""
        self._ended.set()
        for name in list(self._held):
            self.release(name)

    def claim(self, names: Iterable[str]) -> Lease | None:
        """The first of these that nobody holds, taken; None where all are held."""
        last = self._last()
        for name in names:
            number = last.get(name, -1)
            if number >= 0 and self._lives(Lease(self.folder, name, number)):
                continue
            if (lease := self._taken(name, number + 1)) is not None:
                return lease
        return None

    def agree(self, sizes: Mapping[str, int]) -> None:
        """All work in one store, which has its parts."""

    def look(self) -> None:
        """All see the same files."""

    def has(self, name: str) -> bool:
        return True

    def keep(self, name: str, files: Sequence[Path]) -> None:
        self.release(name)

    def finished(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self, name: str) -> None:
        """Let go of one that this process holds."""
        with self._lock:
            lease = self._held.pop(name)
            if not lease.is_there():
                return
            if lease.number == 0:
                lease.path.unlink(missing_ok=True)
            else:  # it stays, for the one who was taken for dead to find
                with contextlib.suppress(OSError):
                    lease.path.write_text(json.dumps(RELEASED))

    def taken_over(self) -> set[str]:
        """Names of leases that ended while they were held, and went to another holder."""
        return {name for name, number in self._last().items() if number > 0}

    def holder(self, name: str) -> str:
        """Who holds a lease, in words."""
        try:
            return in_words(_owner(Lease(self.folder, name, self._last()[name]).path.read_bytes()))
        except (OSError, KeyError):  # gone
            return in_words({})

    def _last(self) -> dict[str, int]:
        """The number of the last lease of each name."""
        last: dict[str, int] = {}
        for file in os.listdir(self.folder) if self.folder.is_dir() else ():
            name, _, number = file.rpartition(".")
            if name and number.isdigit():
                last[name] = max(int(number), last.get(name, 0))
        return last

    def _taken(self, name: str, number: int) -> Lease | None:
        lease = Lease(self.folder, name, number, uuid.uuid4().hex)
        try:
            with open(lease.path, "x") as file, self._lock:
                self._held[name] = lease
                json.dump(this_process(self._what) | {"token": lease.token}, file)
        except (FileExistsError, FileNotFoundError):  # somebody was sooner; or all is done, and the folder gone
            return None
        return lease

    def _lives(self, lease: Lease) -> bool:
        if lease.name in self._held:
            return True
        try:
            with open(lease.path, "rb") as file:  # opened, because NFS then asks the server
                touched, owner = os.fstat(file.fileno()).st_mtime_ns, _owner(file.read())
        except FileNotFoundError:  # let go just now: the next look will tell
            return True
        if owner == RELEASED:
            return False
        if owner.get("machine") == MACHINE and not process_lives(owner["pid"]):
            return False
        now = time.monotonic()
        if self._seen.get(lease.path, (0, 0.0))[0] != touched:
            self._seen[lease.path] = touched, now
        return now - self._seen[lease.path][1] < self._seconds

    def _touch(self) -> None:
        while not self._ended.wait(min(SECONDS_BETWEEN_TOUCHES, self._seconds / 4)):
            with self._lock:
                for lease in self._held.values():
                    with contextlib.suppress(OSError):  # removed: `check` finds out
                        if lease.is_there():
                            os.utime(lease.path)


def leases_folder(artifact: Path) -> Path:
    """Where the leases of the work on an artifact are, whose folder is given."""
    return artifact.with_name(f".{artifact.name}.leases")


def this_process(what: str) -> dict[str, Any]:
    """Who holds a lease: this process, with what it does."""
    return {"machine": MACHINE, "host": socket.gethostname(), "pid": os.getpid(), "what": what}


def in_words(owner: Mapping[str, Any]) -> str:
    """Who that is, for those who wait."""
    if "what" not in owner:
        return "another process"
    return f"`{owner['what']}` (process {owner.get('pid')} on {owner.get('host')})"


def process_lives(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _owner(data: bytes) -> dict:
    try:
        owner = json.loads(data)
        return owner if owner == RELEASED or (isinstance(owner, dict) and isinstance(owner.get("pid"), int)) else {}
    except ValueError:  # being written
        return {}


def _machine() -> str:
    """What tells this machine, since it was started, and this container of it, from all others."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # another system than Linux: its name has to do
        parts += [BOOT.read_text().strip(), os.readlink(CONTAINER)]
    return " ".join(parts)


MACHINE = _machine()
