"""The cores of this machine, shared among the stages that one flow runs at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from common.cores import available_cores
from tasks.engine.stage import Step


class Room:
    """So many cores; who wants more than are left waits, and whoever comes later waits behind."""

    def __init__(self, cores: int):
        self.cores, self._left = cores, cores
        self._turn, self._given_back = threading.Lock(), threading.Condition()

    @contextmanager
    def taken(self, cores: int) -> Iterator[None]:
        """Hold `cores` of them, all of them at most, inside; who wants none waits for nobody."""
        if cores == 0:
            yield
            return
        cores = min(cores, self.cores)
        with self._turn, self._given_back:
            self._given_back.wait_for(lambda: self._left >= cores)
            self._left -= cores
        try:
            yield
        finally:
            with self._given_back:
                self._left += cores
                self._given_back.notify_all()


def cores_of(step: Step) -> int:
    """How many a step computes with: `threads` of each of its processes, or all where one of the two is not given."""
    if not step.stage.on_device:
        return 0
    processes = getattr(step.config, "workers", max(1, getattr(step.config, "ranks", 1)))
    return processes * getattr(step.config, "threads", 0) or available_cores()


ROOM = Room(available_cores())
