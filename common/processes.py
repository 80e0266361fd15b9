"""Processes that end together, and how one ended."""

import multiprocessing
import os
import signal
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5


def how_it_ended(code: int) -> str:
    """A process's exit code in words; negative for a signal."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def die_with(pids: list[int]) -> None:
    """Kill this process group as soon as one of `pids` is gone."""
    import psutil

    def watch() -> None:
        try:
            processes = [psutil.Process(pid) for pid in pids]
            while all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
                time.sleep(SECONDS_BETWEEN_LOOKS)
        except psutil.NoSuchProcess:
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="watch-parents", daemon=True).start()


def end_with_parent() -> None:
    """End this process, one of a pool's, as soon as the one that started it is gone: else it waits for work forever."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None  # this runs in a worker
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="watch-parent", daemon=True).start()
