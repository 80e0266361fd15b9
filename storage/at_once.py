"""Several requests of an object root at a time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FILES_AT_ONCE = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def all_at_once(do: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`do` of each, several at a time; the first error ends it, when what was begun has ended."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        futures = [pool.submit(do, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
