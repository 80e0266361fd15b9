"""The processes under one, by a word of their command."""

import contextlib

import psutil


def children_with(word: str, process: psutil.Process | None = None) -> list[psutil.Process]:
    """Those that live: one that has just ended, but is not waited for, has no command any more, and none is asked."""
    found = []
    for child in (process or psutil.Process()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [child] if any(word in part for part in child.cmdline()) else []
    return found
