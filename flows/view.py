"""`geomim view`: the page of gallery/page, served on this machine alone until Ctrl-C; or a scene for Rerun's viewer."""

import contextlib
import os
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.amounts import duration, size
from common.errors import UserError
from flows.options import DEFAULT_ROOT, Dataroot, Root, Version
from storage.sentences import in_sentences

if TYPE_CHECKING:
    from gallery.page.shelf import Shelf

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
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the link; open no browser, no viewer.")] = False,
    rerun: Annotated[
        str | None,
        typer.Option(
            "--rerun",
            help="Serve no page: write this scene, such as scene-0103, into a file for the Rerun viewer, and open it.",
            metavar="SCENE",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="That file; by default SCENE.rrd.", metavar="FILE", show_default=False),
    ] = None,
    root: Root = DEFAULT_ROOT,
    dataroot: Dataroot = None,
    version: Version = None,
) -> None:
    """Browse artifacts and samples in a page: images, boxes, LiDAR, maps, predictions against truth.

    The page is served on this machine alone, to who has the link. --dataroot says where images are now, if not where
    they were.

    With --rerun a scene's images, LiDAR, boxes and map go into one file for the Rerun viewer, in space and time, such
    as by `geomim view --rerun scene-0103 --out scene.rrd`.

    Example: geomim view artifacts/evaluate/0123456789abcdef artifacts/evaluate/fedcba9876543210
    """
    from gallery.page.shelf import Shelf

    if rerun is None and out is not None:
        raise UserError(f"--out {out}: is the file of --rerun SCENE; name the scene, or leave it out")
    if rerun is not None and port is not None:
        raise UserError(f"--port {port}: is the page's, and --rerun {rerun} serves none; leave one of them out")
    shelf = Shelf(what or [root], dataroot, version)
    if rerun is None:
        _serve(shelf, port, no_open)
    else:
        _record(shelf, rerun, out or Path(f"{rerun}.rrd"), no_open)


def _record(shelf: "Shelf", scene: str, out: Path, no_open: bool) -> None:
    """Write a scene of the artifact that was named, or of that in the roots which has most of it, and say where."""
    from gallery.recording import rerun_package, with_scene, write_recording

    rerun_package()
    start = time.monotonic()
    if out.is_dir() or out.suffix != ".rrd":
        raise UserError(f"--out {out}: the viewer opens files that end in .rrd; name one such as {scene}.rrd")
    if len(shelf.chosen) > 1:
        raise UserError(f"--rerun: a file is of one artifact; name one of {', '.join(shelf.chosen)}")
    gallery = with_scene(shelf.galleries(), scene)
    with in_sentences(out.absolute(), elsewhere="another file by --out"):
        count = write_recording(out, gallery, scene)
    of = f"{count} samples of {gallery.opened.stage} {gallery.opened.path.name}"
    print(f"{out}  {size(out.stat().st_size)}, {of}  {duration(time.monotonic() - start)}")
    print(f"rerun {shlex.quote(str(out))}  opens it", flush=True)
    if not no_open and _has_screen():
        subprocess.Popen([sys.executable, "-m", "rerun", str(out)], start_new_session=True)


def _serve(shelf: "Shelf", port: int | None, no_open: bool) -> None:
    """The page, until Ctrl-C."""
    import uvicorn

    from gallery.page.server import make_app

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
