"""Python's search for garbage, kept from what a process imports: modules stay, and are searched again and again."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unsearched() -> Iterator[None]:
    """For imports: no search meanwhile, which takes a fifth of their time, nor later among what there is then."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


def leave_unsearched() -> None:
    """No search when this process ends, either: behind torch or Prefect it takes most of a second."""
    atexit.register(gc.freeze)
