"""What this machine keeps of installed environments: a list with sizes, and the removal of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.bundle.worker.home import home_of_venvs
from tools.common.errors import ToolError
from tools.corpus.default import default_cache_dir

COLUMNS = ("MiB", "environment")
PROCESSES = Path("/proc")


def homes() -> list[Path]:
    """The directories of ./pants' environments, and of those of bundles and plans."""
    return [default_cache_dir() / "environments", Path(home_of_venvs())]


def environments() -> list[Path]:
    """Every environment that is whole or left half made, by name."""
    found = {path for home in homes() for path in home.glob("*") if path.is_dir()}
    return sorted(found, key=lambda path: (path.name, path))


def table() -> str:
    """The environments with their sizes; what several of them share counts once, for the first."""
    rows, seen, total = [], set[tuple[int, int]](), 0
    for path in environments():
        size = sum(_sizes(path, seen))
        rows.append(f"{size / 2**20:8,.0f}  {path}")
        total += size
    head = f"{COLUMNS[0]:>8}  {COLUMNS[1]}"
    return "\n".join([head, *rows, f"{total / 2**20:8,.0f}  in all"])


def _sizes(directory: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    for parent, _, names in os.walk(directory):
        for name in names:
            facts = os.lstat(Path(parent, name))
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                yield facts.st_blocks * 512


def remove(name: str) -> str:
    """Removes an environment, and says which. A start that needs it makes it again.

    Raises:
        ToolError: there is none of that name, or a process of this machine runs from it.
    """
    found = [path for path in environments() if name in (path.name, str(path))]
    if not found:
        known = ", ".join(path.name for path in environments()) or "none"
        raise ToolError(f"no environment {name!r}; there are {known}")
    for path in found:
        if user := _user_of(path):
            raise ToolError(f"{path.name} is in use, by process {user}; wait for its end")
        shutil.rmtree(path)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return "\n".join(f"removed {path}" for path in found)


def _user_of(directory: Path) -> str:
    """A process of this machine that runs a program of a directory; empty if none does."""
    for process in sorted(PROCESSES.glob("[0-9]*")):
        if process.name == str(os.getpid()):
            continue
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        if f"{directory}/".encode() in words:
            return process.name
    return ""
