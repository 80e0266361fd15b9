"""`geomim view`: the page of gallery/page, served on this machine alone until Ctrl-C."""

import contextlib
import os
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from flows.options import DEFAULT_ROOT, Dataroot, Root, Version

PORT, TRIED = 8300, 20  # the first port, and how many are tried


def view(
    what: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Roots of artifacts, artifacts or dataroots; by default --root. Two artifacts are compared.",
            metavar="[ROOT|ARTIFACT|DATAROOT]...",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help=f"The port; by default the first free one from {PORT} up.", min=1, max=65535),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the link; open no browser.")] = False,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
) -> None:
    """Browse artifacts and samples in a page: images, boxes, LiDAR, maps, predictions against truth.

    The page is served on this machine alone, to who has the link. --dataroot says where images are now, if not where
    they were.

    Example: geomim view artifacts/evaluate/0123456789abcdef artifacts/evaluate/fedcba9876543210
    """
    import uvicorn

    from gallery.page.server import make_app
    from gallery.page.shelf import Shelf

    shelf = Shelf(what or [root], dataroot, version)
    listening = _listen(port)
    number, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    link = f"http://127.0.0.1:{number}/?token={token}"
    # Cookies are shared between ports: each page has one of its own name.
    app = make_app(shelf, token, cookie=f"geomim_view_{number}")
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
    )
    print(f"{link}\nCtrl-C ends it.", flush=True)
    if not no_open and _has_screen():
        threading.Timer(0.5, webbrowser.open, [link]).start()
    with contextlib.suppress(KeyboardInterrupt):  # how it is meant to end
        server.run(sockets=[listening])


def _listen(port: int | None) -> socket.socket:
    """A socket on the loopback interface. Raises UserError where the port, or all that are tried, are taken."""
    for number in [port] if port else range(PORT, PORT + TRIED):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", number))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if port:
                raise UserError(f"--port {port}: {error.strerror}; choose another, or none") from None
            continue
        return listening
    raise UserError(f"ports {PORT} to {PORT + TRIED - 1} are all taken; choose another by --port")


def _has_screen() -> bool:
    """Whether a browser has a window to open in: on Linux without one, a text browser would take the terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
