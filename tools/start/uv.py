"""uv, which installs everything here: the one on PATH, else the one that tools.lock pins."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tools.start import interpreters
from tools.start.fetch import FetchError, fetch, filename
from tools.start.installers import environment, sources, uv_flags
from tools.start.machine import Machine
from tools.start.mirrors import answering

# Of uv's own settings those that say where Pythons come from, and where they lie.
PYTHON_SETTINGS = (
    "UV_PYTHON_INSTALL_DIR",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_PYTHON_CACHE_DIR",
    "UV_PYTHON_DOWNLOADS_JSON_URL",
)


class StartError(Exception):
    """What ./pants needs cannot be had; one line with the remedy."""


def say(message: str) -> None:
    """Prints a line to stderr."""
    print(f"pants: {message}", file=sys.stderr, flush=True)


def locked_wheel(lock: str) -> tuple[str, str]:
    """(URL, sha256) of uv's wheel for this machine in the text of a Pex lock."""
    text = "\n".join(line for line in lock.splitlines() if not line.startswith("//"))
    system = {"Linux": "linux", "Darwin": "macosx"}.get(platform.system(), platform.system())
    machine = platform.machine()
    # The static build runs on every Linux.
    kind = "musllinux" if system == "linux" and machine in ("x86_64", "aarch64") else system
    for requirement in json.loads(text)["locked_resolves"][0]["locked_requirements"]:
        for artifact in requirement["artifacts"]:
            name = filename(artifact["url"])
            if name.startswith("uv-") and kind in name and name.endswith(f"_{machine}.whl"):
                return artifact["url"], artifact["hash"]
    raise StartError(
        f"tools.lock has no uv for {platform.system()} on {machine}: install uv and put it on PATH"
    )


class Uv:
    """The uv to use; fetched when the one at hand fails or there is none."""

    def __init__(self, lock: Path, home: Path, machine: Machine) -> None:
        self.lock, self.home, self.machine = lock, home, machine
        self.command = shutil.which("uv") or ""

    def fetched(self) -> str:
        """The pinned uv, fetched into `home` once."""
        url, sha256 = locked_wheel(self.lock.read_text(encoding="utf-8"))
        place = self.home / f"uv-{sha256[:16]}"
        command = place / "uv"
        if not command.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            with open(f"{place}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not command.exists():
                    self.fetch_to(url, sha256, command)
        return str(command)

    def fetch_to(self, url: str, sha256: str, command: Path) -> None:
        """Unpacks uv from its wheel. Raises StartError."""
        wheel = command.parent.with_suffix(".whl")
        say(f"fetching {filename(url)}")
        try:
            fetch(self.machine, url, sha256, wheel)
        except FetchError as error:
            raise StartError(
                f"{error}. The first start needs PyPI, or a mirror of it that pip's or uv's"
                " configuration names; later starts need no network"
            ) from error
        command.parent.mkdir(exist_ok=True)
        unpack_program(wheel, "uv", command)
        wheel.unlink()

    def run(self, purpose: str, *arguments: str, **env: str) -> str:
        """What uv printed. Raises StartError, after uv's own words."""
        tried, words = "", b""
        for choose in (lambda: self.command, self.fetched):
            try:
                command = choose()
            except StartError:
                if not tried:
                    raise
                break  # why the uv at hand failed says more
            if command in ("", tried):
                continue
            done = subprocess.run(
                [command, *arguments],
                env={**self.variables(), **env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            if done.returncode == 0:
                self.command = command
                return done.stdout.decode().strip()
            tried, words = command, done.stderr
        sys.stderr.write(words.decode("utf-8", "replace"))
        raise StartError(f"could not {purpose}: uv's own words are above")

    def variables(self) -> dict[str, str]:
        """uv's environment."""
        told = {**environment(self.machine, os.environ), **sources(self.machine)}
        return {**told, **python_settings()}

    def install(self, purpose: str, project: str, *arguments: str, **env: str) -> None:
        """`uv pip install` of what is pinned, `project` among it, from every place that answers."""
        self.machine, _ = answering(self.machine, project, say)
        self.run(purpose, "pip", "install", *uv_flags(self.machine), *arguments, **env)

    def python(self, minor: int) -> interpreters.Python:
        """CPython 3.`minor`, downloaded by uv. Raises StartError."""
        say(f"fetching CPython 3.{minor} with uv")
        self.run(f"fetch CPython 3.{minor}", "python", "install", f"3.{minor}")
        path = self.run(
            f"find CPython 3.{minor}",
            *("python", "find", "--no-project", "--managed-python", f"3.{minor}"),
        )
        python = interpreters.ask(path)
        if not python:
            raise StartError(f"{path}, which uv fetched, does not run")
        return python


def python_settings() -> dict[str, str]:
    """Those of PYTHON_SETTINGS that are set."""
    return {name: os.environ[name] for name in PYTHON_SETTINGS if os.environ.get(name)}


def unpack_program(wheel: Path, name: str, target: Path) -> None:
    """Writes the program `name` of a wheel to `target`, at once and whole."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f".data/scripts/{name}"))
        with archive.open(member) as source, open(partial, "wb") as file:
            shutil.copyfileobj(source, file)
    partial.chmod(0o755)
    os.replace(partial, target)
