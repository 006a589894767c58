"""Installs the locked Pants and Pex into a directory of the user's cache, once.

Called by ./pants with any Python from 3.7 on, whose standard library is all it needs: uv does the
work. The file `ready` is written last; what a killed start left is begun anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path

from tools.start import environment, installers, interpreters, machine
from tools.start.uv import StartError, Uv, say

# What Pants is told of the Pex it runs: this file, the size and digest of which it checks.
PEX = """#!{python}
import sys

sys.path.insert(0, {cache!r})
from tools.start import pex_cli

sys.exit(pex_cli.main(sys.argv[1:]))
"""
PLATFORMS = ("linux_x86_64", "linux_arm64", "macos_x86_64", "macos_arm64")


def find_python39(uv: Uv) -> str:
    """The interpreter that Pants runs on: named, found, or fetched. Raises StartError."""
    named = os.environ.get("PANTS_PYTHON39")
    if named:
        python = interpreters.ask(shutil.which(named) or named)
        if not python or python.minor != interpreters.PANTS_MINOR:
            raise StartError(
                f"PANTS_PYTHON39={named} is not a working CPython 3.9; correct or unset it"
            )
        return python.path
    python = interpreters.find(range(interpreters.PANTS_MINOR, interpreters.PANTS_MINOR + 1))
    if python:
        return python.path
    try:
        return uv.python(interpreters.PANTS_MINOR).path
    except StartError as error:
        raise StartError(
            f"Pants 2.17 runs on CPython 3.9, and none was found ({error}). Install one ('uv python"
            " install 3.9', 'pyenv install 3.9' or your system's package) or name it in"
            " PANTS_PYTHON39; UV_PYTHON_INSTALL_MIRROR names a mirror for uv"
        ) from error


def install(root: Path, cache: Path, settings: machine.Machine) -> None:
    """Everything but `ready`."""
    locks = root / "tools/locks"
    say(f"installing Pants into {cache} (once)")
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    settings = installers.with_certificate(settings, cache / "certificates.pem", say)
    uv = Uv(locks / "tools.lock", cache.parent, settings)
    python39 = find_python39(uv)
    own, sources = cache / "tools/start", (root / "tools/start").glob("*.py")
    own.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, own)
    shutil.copy(locks / "tools.lock", cache)
    own_cache = cache / "uv"
    venv, lib = cache / "venv", cache / "pexlib"
    python = venv / "bin/python"
    env = {"UV_CACHE_DIR": str(own_cache)}
    uv.run("make a virtual environment", "venv", "-q", "--python", python39, str(venv), **env)
    hashes = ("--require-hashes", "--link-mode", "hardlink", "--python", str(python))
    uv.install("install Pants", "pantsbuild-pants", *hashes, "-r", str(locks / "pants.txt"), **env)
    # Unpacked beside it: Pants brings a Pex of its own, which is too old for today's Pythons.
    pex = ("--no-deps", "--target", str(lib), "-r", str(locks / "pex.txt"))
    uv.install("install Pex", "pex", *hashes, *pex, **env)
    shutil.rmtree(own_cache, ignore_errors=True)
    write_pex(cache, locks, str(python))
    (cache / "python39").write_text(python39, encoding="utf-8")


def write_pex(cache: Path, locks: Path, python: str) -> None:
    """The file that Pants runs as Pex, and how Pants is told of it: NAME=VALUE lines."""
    text = PEX.format(python=python, cache=str(cache))
    (cache / "pex").write_text(text, encoding="utf-8")
    (cache / "pex").chmod(0o755)
    data = text.encode()
    found = re.search(r"^pex==(\S+)", (locks / "pex.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise StartError(f"{locks / 'pex.txt'} pins no pex: restore it from git")
    version, digest = f"v{found[1]}", hashlib.sha256(data).hexdigest()
    known = "".join(f"'{version}|{name}|{digest}|{len(data)}'," for name in PLATFORMS)
    told = {
        "PANTS_PEX_CLI_VERSION": version,
        "PANTS_PEX_CLI_KNOWN_VERSIONS": f"[{known}]",
    }
    lines = "".join(f"{name}={value}\n" for name, value in told.items())
    (cache / "pex.env").write_text(lines, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """`arguments`: the checkout and the directory. Exit code 1, after one line, if it cannot be."""
    root, cache = map(Path, arguments)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{cache}.lock", "w") as lock:
            # A lock lives in the open file: however its holder ends, it leaves no stale one.
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another start that is installing Pants")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not (cache / "ready").exists() or not (cache / "venv/bin/python").exists():
                install_whole(root, cache)
        return 0
    except (StartError, ValueError) as error:
        say(str(error))
    except OSError as error:
        say(
            f"{error.filename or cache}: {error.strerror}: name a directory with room that can be"
            " written in GRUG_CACHE"
        )
    return 1


def install_whole(root: Path, cache: Path) -> None:
    """Installs, or leaves nothing."""
    try:
        install(root, cache, machine.read(os.environ, say))
        (cache / "ready").touch()
    except (StartError, ValueError, OSError):
        shutil.rmtree(cache, ignore_errors=True)
        raise
    environment.prune((path.parent, path) for path in cache.parent.glob("pants-*/ready"))
