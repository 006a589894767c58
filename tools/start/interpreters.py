"""Finds the CPythons that ./pants needs: 3.9 for Pants itself, and one in range for the code.

Looks where people's version managers put them, asks each one what it is, and takes those that
answer: a shim with nothing behind it does not. Standard library only.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

PANTS_MINOR = 9
# Its own executable, not a virtual environment's; final releases with a global interpreter lock,
# for which wheels are made, and the modules that no package brings.
QUESTION = """
import ctypes, os, platform, ssl, sys, sysconfig, zlib
path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
fits = sys.version_info[3] == "final" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(platform.python_implementation(), sys.version_info[1], int(fits), path, sep="\\n")
"""
SECONDS = 20  # for one answer


class Python(NamedTuple):
    """A CPython 3.`minor` and where it is."""

    path: str
    minor: int


def ask(command: str | Path) -> Python | None:
    """What the interpreter says of itself; None for one that does not run, or of no use here."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [str(command), "-I", "-S", "-c", QUESTION],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    if done.returncode or len(lines) != 4 or lines[0] != "CPython" or lines[2] != "1":
        return None
    return Python(lines[3], int(lines[1]))


def code_range(pants_toml: str) -> tuple[int, int]:
    """(lowest, one past the highest) minor version that pants.toml lets the code run on.

    Raises ValueError if the file does not say so in the one form that is read here.
    """
    found = re.search(
        r'^interpreter_constraints = \["CPython>=3\.(\d+),<3\.(\d+)"\]', pants_toml, re.MULTILINE
    )
    if not found:
        raise ValueError('pants.toml: interpreter_constraints = ["CPython>=3.X,<3.Y"] is missing')
    return int(found[1]), int(found[2])


def find(minors: range, environ: Mapping[str, str] = os.environ) -> Python | None:
    """The newest of these minor versions that is on this machine, the first of those found."""
    newest = None
    asked: set[str] = set()
    for candidate in candidates(minors, environ):
        real = os.path.realpath(candidate)
        # A shim is one file for every version: what it runs depends on the name it is called by.
        key = f"{real} {candidate.name}" if "shims" in candidate.parts else real
        if key in asked or not os.access(candidate, os.X_OK):
            continue
        asked.add(key)
        python = ask(candidate)
        if python and python.minor in minors and (not newest or python.minor > newest.minor):
            newest = python
            if python.minor == minors[-1]:
                break
    return newest


def candidates(minors: range, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where an interpreter may be, in the order of preference, newest version first."""
    versions = [f"3.{minor}" for minor in reversed(minors)]
    path = [Path(p) for p in environ.get("PATH", "").split(os.pathsep) if p]
    for version in versions:
        yield from (directory / f"python{version}" for directory in path)
    for name in ("python3", "python"):
        yield from (directory / name for directory in path)
    places = list(managed(environ, path))
    for version in versions:
        for place, pattern in places:
            for found in sorted(place.glob(pattern.format(version)), key=release, reverse=True):
                yield found / f"bin/python{version}"


def release(directory: Path) -> list[tuple[int, str]]:
    """For sorting: numbers by their value, 3.12.10 after 3.12.9."""
    parts = re.findall(r"\d+|\D+", directory.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def managed(environ: Mapping[str, str], path: list[Path]) -> Iterator[tuple[Path, str]]:
    """(directory, pattern of what lies in it for a version) of each version manager."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")

    def named(variable: str, default: Path) -> Path:
        return Path(environ.get(variable) or default)

    pyenvs = [named("PYENV_ROOT", home / ".pyenv")]
    pyenvs += [entry.parent for entry in path if entry.name == "shims"]
    for root in pyenvs:
        yield root / "versions", "{}.*"
    yield named("UV_PYTHON_INSTALL_DIR", data / "uv/python"), "cpython-{}.*"
    yield named("MISE_DATA_DIR", data / "mise") / "installs/python", "{}.*"
    yield named("ASDF_DATA_DIR", home / ".asdf") / "installs/python", "{}.*"
    for conda in conda_roots(environ, home):
        yield conda.parent, conda.name
        yield conda / "envs", "*"
    for brew in ("/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"):
        yield named("HOMEBREW_PREFIX", Path(brew)) / "opt", "python@{}"
    yield Path("/opt"), "*"
    yield Path("/opt"), "*/{}*"
    yield Path("/opt/python"), "cp*"
    yield Path("/"), "usr/local"
    yield Path("/"), "usr"


def conda_roots(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Where Conda and its kin put their environments."""
    if environ.get("CONDA_EXE"):
        yield Path(environ["CONDA_EXE"]).parents[1]
    names = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba")
    for name in names:
        yield home / name
    yield Path("/opt/conda")
