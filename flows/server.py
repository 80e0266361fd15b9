"""A Prefect server for one run: a quiet child process on a free loopback port, gone when the run is.

The ephemeral server that Prefect would start by itself prints tracebacks at its end; this one does not. Where the user
has a server (PREFECT_API_URL, from the environment or the active profile), that one is used.
"""

import contextlib
import hashlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from common.errors import UserError
from common.garbage import unsearched
from common.processes import die_with
from storage.lock import Busy, locked

SECONDS_TO_START = 180.0  # eight that start at once on two cores take their time
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "INFO",
}
# A run's own server has no use for the types of blocks, to write which takes it seconds in a new database.
ALONE = {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false"}


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The URL of the API to use, PREFECT_API_URL set to it. `home` keeps this server's database and log.

    Where another run's server has that folder, this one takes the next: `home` with -2 and so on behind it. Call it
    before anything imports Prefect: Prefect reads its settings once. Raises UserError if no server comes up.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if url := users_api():
        yield url
        return
    with ExitStack() as stack:
        if "PREFECT_HOME" not in os.environ:
            os.environ["PREFECT_HOME"] = str(stack.enter_context(exclusive_home(plain(home))))
        yield stack.enter_context(_server(Path(os.environ["PREFECT_HOME"])))


def plain(home: Path) -> Path:
    """`home`; or a folder of the machine's, where its name has characters of which Prefect or SQLite make something."""
    if re.fullmatch(r"[\w./ -]+", str(home)):
        return home
    name = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"geomim-{os.getuid()}" / name


@contextlib.contextmanager
def exclusive_home(home: Path) -> Iterator[Path]:
    """The first of `home`, `home-2`, `home-3` ... in which no other run's server is."""
    for number in itertools.count(1):
        folder = home if number == 1 else home.with_name(f"{home.name}-{number}")
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder, "a Prefect server", patient=False))
            except Busy:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            return


@contextlib.contextmanager
def _server(home: Path) -> Iterator[str]:
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    with listener() as taken, open(log, "w") as output:
        url = api_of(taken)
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(taken.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=ALONE | os.environ,
            pass_fds=(taken.fileno(),),
            start_new_session=True,  # Ctrl-C is for the run, which then stops the server
        )
    os.environ["PREFECT_API_URL"] = url
    try:
        with unsearched():
            import flows.pipeline  # noqa: F401  # while the server starts: the run needs it, and it takes a second
        if not _is_up(server, url):
            raise UserError(
                f"the Prefect server did not start; its log is {log}; or set PREFECT_API_URL to a running one"
            )
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


def listener() -> socket.socket:
    """A free loopback port, taken: a server inherits it, and nobody else can have it meanwhile."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def api_of(taken: socket.socket) -> str:
    """The URL of the API that a server on this listener has."""
    return f"http://127.0.0.1:{taken.getsockname()[1]}/api"


def _is_up(server: subprocess.Popen, url: str) -> bool:
    """Whether it answers before it ends or the time is over."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
        time.sleep(0.05)
    return False


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
    for number, patience in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 5.0)):
        if server.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)


def _serve(listening: int) -> None:
    """The server's own process; it ends with the run even where the run is killed."""
    die_with([os.getppid()])
    with unsearched():
        import uvicorn
        from prefect.server.api.server import create_app

        config = uvicorn.Config(create_app(), log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
