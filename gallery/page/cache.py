"""Encoded pictures that were asked for lately, up to so many bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future


class ByteCache:
    """Key -> bytes, the longest unused dropped first. Safe to use from threads: two that want the same make it once."""

    def __init__(self, most: int):
        self._most, self.held = most, 0  # bytes
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, Future[bytes]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What is kept under a key, or else made now. What `make` raises is raised, to all who wait, and not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making, mine = self._making.get(key), False
            if making is None:
                making, mine = self._making.setdefault(key, Future()), True
        if mine:
            self._make(key, make, making)
        return making.result()

    def _make(self, key: Hashable, make: Callable[[], bytes], making: "Future[bytes]") -> None:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            making.set_exception(error)
            return
        with self._lock:
            del self._making[key]
            self._kept[key] = value
            self.held += len(value)
            while self.held > self._most and len(self._kept) > 1:
                self.held -= len(self._kept.popitem(last=False)[1])
        making.set_result(value)
