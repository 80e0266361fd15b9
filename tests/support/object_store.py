"""A real S3 server on this machine, and a proxy before it that breaks what it is told to break."""

import logging
import random
import socket
import struct
import threading
import time
import urllib.request
import uuid
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

STALL = 1.5  # s, longer than what the clients here wait
TIMEOUT = "1"

BEFORE = ("500", "reset", "stall", "torn upload")  # instead of the request
AFTER = ("lost answer", "late 500", "torn body", "slow", "flipped")  # the store has done what was asked
FAULTS = (*BEFORE, *AFTER)


@contextmanager
def s3_server():
    """The port of moto's server.

    It looks at a put's condition and then puts, and between the two lets in another: real stores do not.
    """
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    put, one = S3Response.put_object, threading.Lock()

    def put_object(response):
        with one:
            return put(response)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with mock.patch.object(S3Response, "put_object", put_object):
        server.start()
        try:
            yield server.get_host_and_port()[1]
        finally:
            server.stop()


def new_bucket(port):
    """The URL of an empty one."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return f"s3://{name}/root"


def credentials(port):
    """What a client's environment needs."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "GEOMIM_OBJECT_TIMEOUT": TIMEOUT,
        "NO_PROXY": "127.0.0.1",
    }


class Faults:
    """A proxy's: which request breaks how. `seen` counts them, `requests` all."""

    def __init__(self, rate=0.0, kinds=FAULTS, seed=0):
        self.rate, self.kinds, self.seen, self.requests = rate, kinds, Counter(), 0
        self._random, self._lock = random.Random(seed), threading.Lock()

    def draw(self):
        with self._lock:
            self.requests += 1
            return self._random.choice(self.kinds) if self._random.random() < self.rate else None

    def happened(self, kind):
        with self._lock:
            self.seen[kind] += 1


@contextmanager
def proxy(port, faults):
    """The port of a proxy before a server."""

    class Handler(_Handler):
        upstream, of_proxy = port, faults

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that has gone
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: int
    of_proxy: Faults

    def log_message(self, *_):
        pass

    def _relay(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.of_proxy.draw()
        if fault == "torn upload" and len(body) < 2:
            fault = "reset"
        if fault in BEFORE:
            self.of_proxy.happened(fault)
            if fault == "500":
                return self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            if fault == "stall":
                time.sleep(STALL)
            if fault == "torn upload":
                self._send_half(body)
            return self._reset()
        status, headers, answer = self._ask(body)
        if fault == "flipped" and (
            self.command != "GET" or not answer or "list-type" in self.path or ".lease" in self.path
        ):
            fault = "lost answer"
        if fault in ("torn body", "slow") and len(answer) < 2:
            fault = "late 500"
        if fault is not None:
            self.of_proxy.happened(fault)
        if fault == "lost answer":
            return self._reset()
        if fault == "late 500":
            return self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
        if fault == "flipped":
            place = len(answer) // 2
            answer = answer[:place] + bytes([answer[place] ^ 16]) + answer[place + 1 :]
        return self._answer(status, headers, answer, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay

    def _ask(self, body):
        connection = HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        keep = {
            k: v for k, v in response.getheaders() if k.lower() not in ("connection", "transfer-encoding", "server")
        }
        return response.status, keep, answer

    def _answer(self, status, headers, answer, fault=None):
        headers = headers if "Content-Length" in headers else {**headers, "Content-Length": str(len(answer))}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "torn body":
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            return self._reset()
        if fault == "slow":
            for start in range(0, len(answer), max(1, len(answer) // 4)):
                self.wfile.write(answer[start : start + max(1, len(answer) // 4)])
                time.sleep(0.02)
            return None
        self.wfile.write(answer)
        return None

    def _send_half(self, body):
        """To the server, which must not take it for all."""
        with socket.create_connection(("127.0.0.1", self.upstream)) as upstream:
            head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            upstream.sendall(f"{self.command} {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2])
            upstream.shutdown(socket.SHUT_WR)
            upstream.recv(1)

    def _reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise HTTPException  # nothing more is written
