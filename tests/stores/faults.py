"""A proxy in front of an object store that fails as stores and networks do."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["cut", "lost", "500", "403", "slow", "pause", "stall"]
XML = '<?xml version="1.0"?><Error><Code>{}</Code><Message>made by the test</Message></Error>'


@dataclass
class Fault:
    """What happens to the requests that it matches, `times` of them.

    cut: the connection ends before the store has seen the request. lost: it ends after that, but
    without the answer. 500, 403: the proxy's answer. slow, pause: 1 or 5 seconds pass first. stall:
    no answer.
    """

    kind: Kind
    matches: Callable[[str, str], bool]
    times: float = float("inf")
    met: int = 0

    def strike(self, method: str, path: str) -> Kind | None:
        """What happens to a request, if anything."""
        if self.met >= self.times or not self.matches(method, path):
            return None
        self.met += 1
        return self.kind


@dataclass
class Weather:
    """Each request fails, or is held up for 5 seconds, by chance; the chances are shares of 1."""

    draw: random.Random
    errors: float
    pauses: float
    met: Counter[Kind] = field(default_factory=Counter)
    requests: int = 0

    def strike(self, method: str, path: str) -> Kind | None:
        """What happens to a request, if anything."""
        self.requests += 1
        chance, kind = self.draw.random(), None
        if chance < self.errors:
            kind = self.draw.choice(ERRORS)
        elif chance < self.errors + self.pauses:
            kind = "pause"
        self.met.update([kind] if kind else [])
        return kind


ERRORS: tuple[Kind, ...] = ("cut", "lost", "500")


class Proxy(ThreadingHTTPServer):
    """Forwards to `target`, a URL; `fault` may change while it runs."""

    daemon_threads = True

    def __init__(self, target: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.fault = urlsplit(target).netloc, None
        self.closing = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    fault: Fault | Weather | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def strike(self, method: str, path: str) -> Kind | None:
        with self._lock:
            return self.fault.strike(method, path) if self.fault else None

    def handle_error(self, request: object, client_address: object) -> None:
        """The client going away is no news."""

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":  # a body would be read as the next answer
            self.wfile.write(body)

    def _forward(self) -> None:
        assert isinstance(self.server, Proxy)
        kind = self.server.strike(self.command, self.path)
        if kind == "cut":  # in the middle of a body, where there is one
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if kind in ("500", "403"):
            code = {"500": "InternalError", "403": "AccessDenied"}[kind]
            self._answer(int(kind), [("Content-Type", "text/xml")], XML.format(code).encode())
            return
        if kind == "stall":
            self.server.closing.wait(60)
            self.close_connection = True
            return
        if kind in ("slow", "pause"):
            time.sleep({"slow": 1, "pause": 5}[kind])
        store = http.client.HTTPConnection(self.server.target, timeout=30)
        store.request(self.command, self.path, body, dict(self.headers.items()))
        answer = store.getresponse()
        content = answer.read()
        store.close()
        if kind == "lost":
            self.close_connection = True
            return
        self._answer(answer.status, answer.getheaders(), content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def log_message(self, format: str, *args: object) -> None:
        pass
