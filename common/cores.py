"""The CPU cores that this process may use, and how many threads each of several processes starts on them.

Libraries count the machine's cores, which in a container or a batch job are not ours, and start as many threads in each
process. They read how many when they are loaded, so a process must be told before it begins.
"""

import os
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

# Where OpenMP (torch), OpenBLAS (NumPy), MKL and Apple's Accelerate read their number of threads.
COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

# How OpenMP's threads wait for each other between two loops: they spin for some 100 us, which is enough for most of the
# thousands of short loops of a training step, then sleep. By default they spin for 5 to 10 ms: beside a busy process
# they burn the time that the late ones among them need (docs/training.md). The first is GNU's, torch's on Linux.
WAITING = {"GOMP_SPINCOUNT": "3000", "OMP_WAIT_POLICY": "PASSIVE"}


def available_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Whole cores, at least 1: the least of the affinity (or, where there is none, the machine) and cgroups' quotas."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(cgroups, membership)])))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """How many cores each cgroup of this process, up to the root, may use at most; version 1 or 2 of cgroups.

    In a container the root is often the container's own, and the path that the kernel tells leads nowhere.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # a system without cgroups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
            place = (cgroups / "cpu" if controllers else cgroups) / str(folder).lstrip("/")
            try:
                if controllers:
                    values = [(place / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
                else:
                    values = (place / "cpu.max").read_text().split()
                quota, period = map(int, values)
            except (OSError, ValueError):  # no such folder, or no quota: "max"
                continue
            if quota > 0:  # version 1 says -1 for none
                yield quota / period


def environment_of_child() -> dict[str, str]:
    """What a process that computes alone finds in its environment; what the user has set there comes first.

    Launchers such as torchrun would have it compute with one thread.
    """
    count = os.environ.get("OMP_NUM_THREADS") or str(available_cores())
    waiting = {} if any(name in os.environ for name in WAITING) else WAITING  # of the two, GNU's spin count wins
    return waiting | dict.fromkeys(COUNTS, count) | os.environ | {"OMP_NUM_THREADS": count}


class SharingContext(SpawnContext):
    """For `ProcessPoolExecutor(..., mp_context=...)`: processes that compute with so many threads each.

    Fresh ones, because the fork of a process that holds torch's, zarr's or Numba's threads may hang.
    """

    def __init__(self, threads: int):
        super().__init__()
        self._environment = dict.fromkeys(COUNTS, str(threads))
        self._processes: list[SpawnProcess] = []

    def Process(self, target: Callable[..., None], args: tuple) -> SpawnProcess:  # type: ignore[override]  # a class there
        process = _Process(self._environment, target, args)
        self._processes.append(process)
        return process

    def kill(self) -> None:
        """End all processes, of a pool that has lost one: Python 3.11 waits for ever for one that began just then."""
        for process in self._processes:
            if process.pid is not None:
                process.kill()


class _Process(SpawnProcess):
    def __init__(self, environment: dict[str, str], target: Callable[..., None], args: tuple):
        super().__init__(target=target, args=args)
        self._environment = environment

    def start(self) -> None:
        """The process inherits this one's environment, which is another for these milliseconds."""
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            super().start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
