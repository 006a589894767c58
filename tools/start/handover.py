"""Takes a long program out of Pants, so that the next command finds the daemon free.

A program that `run` starts keeps Pants' daemon to its end: for hours, if it trains. One that calls
`leave_pants` first says how it goes on, and ends; ./pants then becomes it. It runs on a copy of the
sources it was built from, as it would have inside Pants.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "GRUG_HANDOVER"  # the file in which ./pants looks, if it is asked to
SOURCES = ("experiments", "tools")


def leave_pants(program: Path, arguments: Sequence[str], root: Path, cache: Path) -> None:
    """Ends this process, to start `program`, a module under `root`, outside of Pants.

    Returns where ./pants did not ask for it. The sources under `root` are kept in `cache`.
    """
    file = os.environ.pop(VARIABLE, "")
    if not file:
        return
    module = ".".join(program.relative_to(root).with_suffix("").parts)
    # Pants' sandbox reaches the environment by a link that goes with it.
    python = Path(sys.executable)
    command = [str(python.parent.resolve() / python.name), "-sP", "-m", module, *arguments]
    told = {"command": command, "sources": str(keep(root, cache / "launched"))}
    Path(file).write_text(json.dumps(told), encoding="utf-8")
    sys.exit(0)


def keep(root: Path, home: Path) -> Path:
    """A copy of the sources under `root`, in a directory of `home` named by its content."""
    files = {
        path.relative_to(root): path.read_bytes()
        for name in SOURCES
        for path in sorted((root / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name.as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    place = home / digest.hexdigest()[:16]
    if not place.is_dir():
        partial = home / f"{place.name}.{os.getpid()}"
        for name, data in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        try:
            partial.rename(place)
        except OSError:  # another start was faster
            shutil.rmtree(partial, ignore_errors=True)
    os.utime(place)
    return place


def take_over(file: Path, environment: dict[str, str]) -> None:
    """Becomes the program that left its word in `file`; returns if none did."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    file.unlink()
    sys.stdout.flush()
    command = told["command"]
    os.execve(command[0], command, {**environment, "PYTHONPATH": told["sources"]})
