"""Servers, certificates and wheels that the tests share."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bootstrap.checkout import (
    Checkout,
    Packages,
    base_python,
    make_checkout,
    make_packages,
)
from tests.bootstrap.servers import Authority, Index, Proxy
from tools.start import interpreters, machine, settings


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    try:
        return Authority(tmp_path_factory.mktemp("an authority"))
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificates, is not on PATH")


def read(environ: dict[str, str], prefix: str | None = None) -> machine.Machine:
    """What `environ` and the files that it names say, none of which is broken."""
    return machine.read(environ, pytest.fail, prefix)


@pytest.fixture
def quiet_etc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the files read, those below a test's own directory count, none of this machine's /etc."""
    original, exists = settings.text_of, os.path.exists

    def text_of(path: str) -> str:
        if path.startswith(("/etc/", "/Library/")):
            raise FileNotFoundError(path)
        return original(path)

    monkeypatch.setattr(settings, "text_of", text_of)
    monkeypatch.setattr(os.path, "exists", lambda path: exists(path) and path != "/etc/uv/uv.toml")


@pytest.fixture
def user_home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


@pytest.fixture
def environ(user_home: Path) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    shared = f"{user_home}/xdg one:{user_home}/xdg two"
    return {"HOME": str(user_home), "XDG_CONFIG_DIRS": shared, "PATH": os.environ["PATH"]}


@pytest.fixture(scope="session")
def namespace() -> list[str]:
    """The command before one that mounts what it wants and disturbs nobody."""
    command = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("needs root on Linux, to mount over a directory of the system's")
    return command


@pytest.fixture(scope="session")
def grug_cache() -> Path:
    """Where ./pants, outside of the tests, installs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("GRUG_CACHE") or f"{home}/grug")


@pytest.fixture(scope="session")
def uv(grug_cache: Path) -> Path:
    """A real uv: of PATH, or what ./pants once fetched."""
    on_path = shutil.which("uv")
    for path in ([Path(on_path)] if on_path else []) + sorted(grug_cache.glob("uv-*/uv")):
        if not subprocess.run([path, "--version"], capture_output=True).returncode:
            return path.resolve()
    pytest.skip("there is no uv: run ./pants once, or put one on PATH")


@pytest.fixture(scope="session")
def python39() -> str:
    """CPython 3.9, which ./pants names to what it runs."""
    named = interpreters.ask(os.environ.get("PANTS_PYTHON39", "")) or interpreters.find(
        range(9, 10)
    )
    if not named:
        pytest.skip("there is no CPython 3.9: name one in PANTS_PYTHON39")
    return named.path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, uv: Path) -> Packages:
    return make_packages(tmp_path_factory.mktemp("an index"), uv)


@pytest.fixture
def bare(tmp_path: Path, packages: Packages) -> Checkout:
    """A machine with no Python and no uv on PATH, and none named."""
    return make_bare(tmp_path, packages)


def make_bare(directory: Path, packages: Packages) -> Checkout:
    checkout = make_checkout(directory, packages)
    checkout.env.update(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=packages.index)
    checkout.env["XDG_CONFIG_DIRS"] = str(directory / "xdg")
    return checkout


@pytest.fixture
def checkout(bare: Checkout, uv: Path, python39: str) -> Checkout:
    """A machine that has all that ./pants looks for, and names it, so that nothing is searched."""
    return equip(bare, uv, python39)


def equip(checkout: Checkout, uv: Path, python39: str) -> Checkout:
    checkout.link("uv", uv)
    checkout.link("python3", base_python())
    checkout.env.update(PANTS_PYTHON39=python39, PANTS_PYTHON=base_python())
    return checkout


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory, packages: Packages, uv: Path, python39: str
) -> Path:
    """Where the ./pants that every checkout is a copy of is installed already."""
    checkout = equip(make_bare(tmp_path_factory.mktemp("first"), packages), uv, python39)
    checkout.run().check()
    return checkout.home / ".cache/grug"


@pytest.fixture
def installed(checkout: Checkout, installation: Path) -> Checkout:
    """For tests of later starts alone: the first one was another checkout's."""
    checkout.env["GRUG_CACHE"] = str(installation)
    return checkout


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
