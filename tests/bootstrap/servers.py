"""Real servers on loopback: a package index over HTTP or HTTPS, and a proxy that must be used."""

from __future__ import annotations

import base64
import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Names that no resolver knows: they are reached through a proxy, or not at all.
HIDDEN = "packages.invalid"
# Where nobody answers, at once and without a resolver.
ABSENT = "https://localhost:1/packages"

EXTENSIONS = """[req]
distinguished_name = name
prompt = no
[name]
CN = test
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, DNS:{hidden}, IP:127.0.0.1
"""


class Authority:
    """A certificate authority that nobody trusts yet, and a server's certificate of its own."""

    def __init__(self, directory: Path) -> None:
        if not shutil.which("openssl"):
            raise FileNotFoundError("openssl")
        self.directory = directory
        self.certificate = directory / "authority.pem"
        self.server = directory / "server.pem"
        (directory / "openssl.cnf").write_text(EXTENSIONS.format(hidden=HIDDEN))
        for name in ("authority", "server"):
            self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", out=f"{name}.key")
        made = ("req", "-new", "-config", "openssl.cnf", "-subj")
        self._openssl(
            *(*made, "/CN=A test authority", "-x509", "-days", "2", "-key", "authority.key"),
            *("-extensions", "authority"),
            out="authority.pem",
        )
        self._openssl(*made, "/CN=localhost", "-key", "server.key", out="server.csr")
        self._openssl(
            *("x509", "-req", "-in", "server.csr", "-days", "2", "-set_serial", "1"),
            *("-CA", "authority.pem", "-CAkey", "authority.key"),
            *("-extfile", "openssl.cnf", "-extensions", "server"),
            out="server.pem",
        )
        with self.server.open("a") as file:
            file.write((directory / "server.key").read_text())

    def _openssl(self, *arguments: str, out: str) -> None:
        subprocess.run(
            ["openssl", *arguments, "-out", out],
            cwd=self.directory,
            check=True,
            capture_output=True,
        )

    def write_hashed(self, directory: Path) -> None:
        """The authority as OpenSSL looks for it in a directory: by the hash of its name."""
        done = subprocess.run(
            ["openssl", "x509", "-in", str(self.certificate), "-noout", "-hash"],
            capture_output=True,
            check=True,
            text=True,
        )
        shutil.copy(self.certificate, directory / f"{done.stdout.strip()}.0")

    def wrap(self, listening: socket.socket) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context.wrap_socket(listening, server_side=True)


class QuietServer(ThreadingHTTPServer):
    """On a free port; a client that hangs up, as some tests want, is no error of the server."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], authority: Authority | None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port: int = self.server_address[1]
        if authority:
            self.socket = authority.wrap(self.socket)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()


class Index(QuietServer):
    """Serves the files of a directory, and does what `faults` says once for each entry.

    A fault is a status, "truncated", "silence", "drip" (headers without end), or a URL to redirect
    to. `asked` holds the paths that were asked for; `seen` the Authorization header, if any, beside
    each.
    """

    def __init__(
        self, directory: Path, authority: Authority | None = None, login: str = ""
    ) -> None:
        super().__init__(IndexHandler, authority)
        self.directory = directory
        self.login = login
        self.scheme = "https" if authority else "http"
        self.faults: defaultdict[str, list[int | str]] = defaultdict(list)
        self.asked: list[str] = []
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def url_with_login(self) -> str:
        return self.url.replace("://", f"://{self.login}@")


class IndexHandler(SimpleHTTPRequestHandler):
    def __init__(self, request: Any, address: Any, server: Index) -> None:
        super().__init__(request, address, server, directory=str(server.directory))

    @property
    def index(self) -> Index:
        assert isinstance(self.server, Index)
        return self.server

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        self.index.asked.append(self.path)
        self.index.seen.append((self.path, given))
        if self.index.login and given != basic(self.index.login):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="packages"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        faults = self.index.faults[self.path]
        fault = faults.pop(0) if faults else None
        if fault == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"a part of it")
        elif fault == "drip":
            self.send_response(200)
            with contextlib.suppress(OSError):
                for _ in range(50):
                    self.flush_headers()
                    self.send_header("X-More", "1")
                    time.sleep(0.2)
            self.close_connection = True
        elif fault == "silence":
            time.sleep(2)
            self.close_connection = True
        elif isinstance(fault, str):
            self.send_response(302)
            self.send_header("Location", fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault is not None:
            self.send_error(fault)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Proxy(QuietServer):
    """Forwards to the loopback servers of `routes`, which are known by name to nobody else."""

    def __init__(self, routes: dict[str, int], login: str = "") -> None:
        super().__init__(ProxyHandler, None)
        self.routes = routes
        self.login = login
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        login = f"{self.login}@" if self.login else ""
        return f"http://{login}127.0.0.1:{self.port}"


class ProxyHandler(BaseHTTPRequestHandler):
    @property
    def proxy(self) -> Proxy:
        assert isinstance(self.server, Proxy)
        return self.server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        with self.routed(parts.hostname or "") as upstream:
            if upstream:
                path = parts._replace(scheme="", netloc="").geturl()
                lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
                upstream.sendall("\r\n".join([*lines, "", ""]).encode())
                for part in iter(lambda: upstream.recv(65536), b""):
                    self.wfile.write(part)

    def do_CONNECT(self) -> None:
        with self.routed(self.path.partition(":")[0]) as upstream:
            if upstream:
                self.send_response(200)
                self.end_headers()
                relay(self.connection, upstream)

    @contextlib.contextmanager
    def routed(self, host: str) -> Generator[socket.socket | None]:
        """A connection to the server behind this name; None after a refusal."""
        self.close_connection = True
        self.proxy.asked.append(host)
        given = self.headers.get("Proxy-Authorization", "")
        if self.proxy.login and given != basic(self.proxy.login):
            self.send_error(407)
            yield None
        elif host not in self.proxy.routes:
            self.send_error(502)
            yield None
        else:
            with socket.create_connection(("127.0.0.1", self.proxy.routes[host])) as upstream:
                yield upstream

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes in both directions until either side ends."""
    to = {one: other, other: one}
    while True:
        for ready in select.select(list(to), [], [])[0]:
            part = ready.recv(65536)
            if not part:
                return
            to[ready].sendall(part)


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def dead_port() -> int:
    """A port at which nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
