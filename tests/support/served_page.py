"""The page of `geomim view` on a port of this machine, and what one asks of it."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import uvicorn

from gallery.page.server import make_app
from gallery.page.shelf import Shelf

TOKEN, COOKIE = "the-token", "geomim_view"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Page:
    """A page that is served."""

    def __init__(self, port: int):
        self.port = port
        self.address = f"http://127.0.0.1:{port}/"
        self.link = f"{self.address}?token={TOKEN}"

    def ask(self, path: str, headers: dict[str, str] | None = None, **query) -> Answer:
        """By somebody who has the link's cookie, unless the headers say otherwise."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        address = f"{path}?{urlencode(query)}" if query else path
        connection.request("GET", address, headers={"Cookie": f"{COOKIE}={TOKEN}"} | (headers or {}))
        answer = connection.getresponse()
        told = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return told


@contextmanager
def served(*paths: Path, **options) -> Iterator[Page]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)  # from here on requests wait
    app = make_app(Shelf(paths, **options), TOKEN, COOKIE)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Page(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
