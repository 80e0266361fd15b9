"""How this project compiles loops: without the interpreter's lock, and kept from one run to the next."""

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled by Numba at its first call: threads run it side by side, and the machine code is kept.

    It is kept in `__pycache__` or in the user's cache folder, whichever can be written; where neither can, every
    process compiles its own.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(nogil=True)(function)
