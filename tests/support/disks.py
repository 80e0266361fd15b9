"""Disks that are full or closed, for tests: the real thing, arranged without a mount."""

import contextlib
import os
import resource

NOBODY = 65534


def full():
    """For `preexec_fn`: no file may grow beyond a few bytes, as on a full disk."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


@contextlib.contextmanager
def closed(folder):
    """Inside, this process may read the folder and all below it, and write nothing there."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for place in folders:
        place.chmod(0o555)
    root = os.geteuid() == 0  # who may write everywhere
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for place in folders:
            place.chmod(0o755)
