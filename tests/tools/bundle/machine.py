"""A machine of the test's own, with its settings of pip and uv, and mirrors that it may know."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

DEAD = "http://127.0.0.1:9/simple"  # nobody listens there
SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
HOST = "mirror.invalid"  # a name that no resolver knows: only a proxy gets there
NOWHERE = "nowhere.invalid"  # a name that no proxy knows either
# What a start inherits of the real machine: no installer's settings, certificates or proxies.
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True)
class Machine:
    """Directories of one machine: a home, the system's configuration, a cache of environments."""

    root: Path

    @property
    def venvs(self) -> Path:
        return self.root / "venvs"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        path = kept.get("PATH", os.defpath).split(os.pathsep)
        # Which installer runs is the test's matter.
        kept["PATH"] = os.pathsep.join(p for p in path if not Path(p, "uv").exists())
        places = {
            "HOME": self.root / "home",
            "XDG_CONFIG_DIRS": self.root / "etc",
            "GRUG_VENVS": self.venvs,
        }
        return {**kept, **{name: str(path) for name, path in places.items()}, **more}

    def configure(self, tool: str, text: str, level: str = "user") -> Path:
        """Writes pip.conf or uv.toml: the user's (in the old place: legacy), or the site's."""
        directory = {
            "user": f"home/.config/{tool}",
            "legacy": f"home/.{tool}",
            "site": f"etc/{tool}",
        }
        path = self.root / directory[level] / {"pip": "pip.conf", "uv": "uv.toml"}[tool]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, command: list[str], **env: str) -> subprocess.CompletedProcess:
        """The finished process, its output as text."""
        (self.root / "home").mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def left_over(self) -> list[str]:
        """What is neither an environment, sources nor an installer, but half of one."""
        return sorted(path.name for path in self.venvs.rglob("*.partial*"))


def make_index(root: Path, wheels: Path) -> Path:
    """A mirror as https://peps.python.org/pep-0503/ has it; its pages are in root/simple."""
    for wheel in sorted(wheels.glob("*.whl")):
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        page = root / "simple" / wheel.name.split("-")[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        (root / wheel.name).write_bytes(wheel.read_bytes())
        link = f'<a href="../../{wheel.name}#sha256={digest}">{wheel.name}</a>'
        page.write_text(f"<!DOCTYPE html><html><body>{link}</body></html>\n")
    return root / "simple"


@dataclass
class Server:
    """A server on this machine and the requests that it has seen."""

    url: str
    requests: list[str] = field(default_factory=list)


class _Handler(SimpleHTTPRequestHandler):
    seen: list[str]
    tunnel: int | None = None  # the port behind every name, for a proxy

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if urlsplit(self.path).hostname == NOWHERE:
            self.send_error(502)
            return
        self.path = urlsplit(self.path).path
        super().do_GET()

    def do_CONNECT(self) -> None:
        self.seen.append(self.path)
        if self.tunnel is None or self.path.startswith(NOWHERE):
            self.send_error(502)
            return
        with socket.create_connection(("127.0.0.1", self.tunnel)) as other:
            self.send_response(200)
            self.end_headers()
            both = (self.connection, other)
            while True:
                for ready in select.select(both, (), ())[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    both[ready is self.connection].sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(
    directory: Path,
    certificate: Path | None = None,
    tunnel: int | None = None,
    clients: Path | None = None,
) -> Generator[Server]:
    """Serves `directory` over HTTP, or HTTPS where a certificate is given; or is a proxy.

    Where `clients` is a certificate authority, only those that have a certificate of it are served.

    A proxy answers for any host: with the files of `directory`, or with what listens on the local
    port `tunnel`.
    """
    seen: list[str] = []
    handler = type("Handler", (_Handler,), {"seen": seen, "tunnel": tunnel})
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(directory))
    )
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        name = "https" if certificate else "http"
        # Some releases of pip fail at a certificate for an address.
        host = "localhost" if name == "https" else "127.0.0.1"
        yield Server(f"{name}://{host}:{server.server_port}", seen)
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent_server() -> Generator[str]:
    """An address where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test: ca.pem, and server.pem (with its key) for a mirror."""

    ca: Path
    server: Path


def make_authority(directory: Path) -> Authority:
    """Made by openssl, so that no key lies in the repository."""
    names = f"subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{HOST}"
    own = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")

    def openssl(*words: str | Path) -> None:
        command = ["openssl", *map(str, words)]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    ca = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")
    openssl("req", "-x509", *own, "-subj", "/CN=A test", "-keyout", "ca.key", "-out", "ca.pem", *ca)
    openssl("req", *own, "-subj", "/CN=mirror", "-keyout", "server.key", "-out", "server.csr")
    (directory / "names").write_text(f"{names}\n")
    sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", "server.csr", *sign, "-extfile", "names", "-out", "server.crt")
    server = directory / "server.pem"
    parts = [(directory / name).read_text() for name in ("server.crt", "server.key")]
    server.write_text("".join(parts))
    return Authority(directory / "ca.pem", server)


# Ways in which a machine can name an index, a certificate and a proxy: each writes what it needs
# and gives the variables of a start.
Way = Callable[[Machine, str], dict[str, str]]


def _pip_conf(text: str, level: str = "user") -> Way:
    def write(machine: Machine, value: str) -> dict[str, str]:
        machine.configure("pip", text.format(value), level)
        return {}

    return write


def _uv_toml(text: str, level: str = "user") -> Way:
    def write(machine: Machine, value: str) -> dict[str, str]:
        machine.configure("uv", text.format(value), level)
        return {}

    return write


def _variable(*names: str, **more: str) -> Way:
    return lambda _, value: {**dict.fromkeys(names, value), **more}


def _named_file(variable: str, tool: str, text: str) -> Way:
    def write(machine: Machine, value: str) -> dict[str, str]:
        path = machine.configure(tool, text.format(value)).rename(machine.root / "named")
        return {variable: str(path)}

    return write


INDEXES: Mapping[str, Way] = {
    "PIP_INDEX_URL": _variable("PIP_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": _variable("PIP_EXTRA_INDEX_URL", PIP_INDEX_URL=DEAD),
    "UV_DEFAULT_INDEX": _variable("UV_DEFAULT_INDEX"),
    "UV_INDEX_URL": _variable("UV_INDEX_URL"),
    "UV_INDEX": lambda _, url: {"UV_INDEX": f"mirror={url}", "PIP_INDEX_URL": DEAD},
    "pip.conf, user": _pip_conf("[global]\nindex-url = {}\n"),
    "pip.conf, user, as it was": _pip_conf("[global]\nindex_url = {}\n", "legacy"),
    "pip.conf, site": _pip_conf("[install]\nindex-url = {}\n[global]\nindex-url = x:\n", "site"),
    "pip.conf, extra": _pip_conf(
        f"[global]\nindex-url={DEAD}\nextra-index-url =\n  {DEAD}\n  {{}}\n"
    ),
    "PIP_CONFIG_FILE": _named_file("PIP_CONFIG_FILE", "pip", "[global]\nindex-url = {}\n"),
    "uv.toml, user": _uv_toml('index-url = "{}"\n'),
    "uv.toml, site": _uv_toml('[[index]]\nurl = "{}"\ndefault = true\n', "site"),
    "uv.toml, pip": _uv_toml(f'index-url = "{DEAD}"\n[pip]\nindex-url = "{{}}"\n'),
    "UV_CONFIG_FILE": _named_file("UV_CONFIG_FILE", "uv", 'index-url = "{}"\n'),
}
CERTIFICATES: Mapping[str, Way] = {
    "PIP_CERT": _variable("PIP_CERT"),
    "REQUESTS_CA_BUNDLE": _variable("REQUESTS_CA_BUNDLE"),
    "CURL_CA_BUNDLE": _variable("CURL_CA_BUNDLE"),
    "SSL_CERT_FILE": _variable("SSL_CERT_FILE"),
    "SSL_CERT_DIR": lambda _, path: {"SSL_CERT_DIR": f"/no/such:{os.path.dirname(path)}"},
    "beside another": _variable("REQUESTS_CA_BUNDLE", SSL_CERT_FILE=SYSTEM),
    "pip.conf": _pip_conf("[global]\ncert = {}\n"),
}
PROXIES: Mapping[str, Way] = {
    "PIP_PROXY": _variable("PIP_PROXY"),
    "https_proxy": _variable("https_proxy"),
    "ALL_PROXY": _variable("ALL_PROXY"),
    "pip.conf": _pip_conf("[global]\nproxy = {}\n"),
    "pip.conf before the environment": lambda machine, url: {
        **_pip_conf("[global]\nproxy = {}\n")(machine, url),
        "HTTPS_PROXY": "http://127.0.0.1:9",
    },
    "uv.toml": _uv_toml('https-proxy = "{}"\n'),
}

# Settings that change what is installed, where to, or whether at all. {root} is a directory of the
# test's own, with constraints.txt that no pin satisfies.
PIP_SETTINGS: Mapping[str, str] = {
    "constraint": "{root}/constraints.txt",
    "dry-run": "true",
    "platform": "win_amd64",
    "prefix": "{root}/elsewhere",
    "python-version": "3.8",
    "requirement": "{root}/more.txt",
    "require-virtualenv": "true",
    "root": "{root}/elsewhere",
    "target": "{root}/elsewhere",
    "user": "true",
    "timeout": "soon",
    "use-feature": "no-such",
}
UV_SETTINGS: Mapping[str, str] = {
    "CONCURRENT_DOWNLOADS": "many",
    "CONFIG_FILE": "{root}/constraints.txt",
    "CONSTRAINT": "{root}/constraints.txt",
    "EXCLUDE_NEWER": "2001-01-01",
    "INDEX_STRATEGY": "nonsense",
    "KEYRING_PROVIDER": "nonsense",
    "LINK_MODE": "nonsense",
    "OFFLINE": "1",
    "OVERRIDE": "{root}/constraints.txt",
    "PRERELEASE": "nonsense",
    "RESOLUTION": "nonsense",
    "TORCH_BACKEND": "nonsense",
    "WORKING_DIR": "{root}/none",
}
UV_FILES: Mapping[str, str] = {
    "constraint": 'constraint-dependencies = ["jax<0.1"]\n',
    "exclude newer": 'exclude-newer = "2001-01-01"\n',
    "no binary": "no-binary = true\n",
    "no toml": "target = \n",
    "offline": "offline = true\n",
    "override": 'override-dependencies = ["jax<0.1"]\n',
    "prefix": '[pip]\nprefix = "{root}/elsewhere"\n',
    "strategy": 'index-strategy = "nonsense"\n',
    "target": '[pip]\ntarget = "{root}/elsewhere"\n',
    "unknown": "no-such-setting = 3\n",
    "version": 'required-version = "==0.1.0"\n',
}


def settings_files(root: Path) -> None:
    """What PIP_SETTINGS and UV_SETTINGS name."""
    (root / "constraints.txt").write_text("jax<0.1\n")
    (root / "more.txt").write_text("no-such-package==1\n")
