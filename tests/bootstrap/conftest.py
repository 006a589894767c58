"""Servers, certificates and wheels that the tests share."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bootstrap.servers import Authority, Index, Proxy


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    try:
        return Authority(tmp_path_factory.mktemp("an authority"))
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificates, is not on PATH")


@pytest.fixture(scope="session")
def namespace() -> list[str]:
    """The command before one that mounts what it wants and disturbs nobody."""
    command = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("needs root on Linux, to mount over a directory of the system's")
    return command


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: contextlib.ExitStack) -> Callable[..., Index]:
    """Starts an Index until the test ends."""

    def start(directory: Path, **options: Any) -> Index:
        server = Index(directory, **options)
        stack.enter_context(server.running())
        return server

    return start


@pytest.fixture
def proxy(stack: contextlib.ExitStack) -> Callable[..., Proxy]:
    """Starts a Proxy until the test ends."""

    def start(routes: dict[str, int], **options: Any) -> Proxy:
        server = Proxy(routes, **options)
        stack.enter_context(server.running())
        return server

    return start
