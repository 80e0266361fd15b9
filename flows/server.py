"""A Prefect server for one run: a quiet child process on a free loopback port, gone when the run is.

The ephemeral server that Prefect would start by itself prints tracebacks at its end; this one does not. Where the user
has a server (PREFECT_API_URL, from the environment or the active profile), that one is used.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tasks.child import die_with
from tasks.errors import UserError

SECONDS_TO_START = 60.0
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "INFO",
}


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The URL of the API to use, PREFECT_API_URL set to it. `home` keeps this server's database and log.

    Call it before anything imports Prefect: Prefect reads its settings once. Raises UserError if no server comes up.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if url := users_api():
        yield url
        return
    os.environ.setdefault("PREFECT_HOME", str(home))
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    log = Path(os.environ["PREFECT_HOME"]) / "server.log"
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the run, which then stops the server
        )
    os.environ["PREFECT_API_URL"] = url
    try:
        _wait_until_up(server, url, log)
        try:
            yield url
        finally:
            _drain()
    finally:
        os.environ.pop("PREFECT_API_URL")
        _stop(server)


def users_api() -> str | None:
    """The API the user has chosen, or None."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    profiles = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")) / "profiles.toml"
    if not profiles.is_file():
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(server: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return
        time.sleep(0.1)
    raise UserError(f"the Prefect server did not start; its log is {log}; or set PREFECT_API_URL to a running one")


def _drain() -> None:
    """Hand over pending logs and events: a server stopped before that makes Prefect wait and complain."""
    import asyncio

    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        with contextlib.suppress(Exception):  # nothing to hand over, or a log line lost: never worth failing a run
            drained = worker.drain_all(timeout=5)
            if asyncio.iscoroutine(drained):
                asyncio.run(drained)


def _stop(server: subprocess.Popen) -> None:
    for number, patience in ((signal.SIGINT, 5.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        if server.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)


def _serve(port: int) -> None:
    """The server's own process; it ends with the run even where the run is killed."""
    die_with([os.getppid()])
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port, log_level="warning"
    )


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
