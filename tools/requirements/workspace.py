"""The resolves of the workspace: their requirements and their locks."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tools.bundle.pack import JAX
from tools.common.errors import ToolError

CONFIG = "pants.toml"
ACCELERATORS = tuple(sorted(JAX))
"""Resolves that a variant's bundles install, and which therefore must agree on JAX."""


@dataclass(frozen=True)
class Resolve:
    """A resolve; paths are from the workspace's root.

    Not every resolve has a listing: BUILD files may declare requirements too.
    """

    name: str
    lock: str

    @property
    def listing(self) -> str:
        """The file of its direct requirements, one per line: tools/locks/cpu.in."""
        return PurePosixPath(self.lock).with_suffix(".in").as_posix()


def resolves(root: Path) -> dict[str, Resolve]:
    """The resolves that pants.toml names. Raises ToolError if it cannot be read."""
    try:
        config = tomllib.loads((root / CONFIG).read_text("utf-8"))
        locks = config["python"]["resolves"]
    except OSError as error:
        message = f"{root / CONFIG}: {error.strerror}: name the workspace with --root"
        raise ToolError(message) from error
    except (ValueError, KeyError) as error:
        raise ToolError(f"{CONFIG}: names no [python.resolves]: {error}") from error
    return {name: Resolve(name, lock) for name, lock in sorted(locks.items())}


def choose(all_resolves: Mapping[str, Resolve], names: Iterable[str]) -> list[Resolve]:
    """The named resolves, each once, sorted by name. Raises ToolError for an unknown one."""
    chosen = sorted(set(names))
    for name in chosen:
        if name not in all_resolves:
            close = difflib.get_close_matches(name, all_resolves, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(all_resolves)}"
            raise ToolError(f"{CONFIG}: [python.resolves] has no {name!r}; {remedy}")
    return [all_resolves[name] for name in chosen]


def accelerators(all_resolves: Mapping[str, Resolve]) -> list[Resolve]:
    """The resolves that variants run in."""
    return [all_resolves[name] for name in ACCELERATORS if name in all_resolves]


def read(root: Path, path: str) -> bytes | None:
    """A file of the workspace; None if there is none. Raises ToolError if it cannot be read."""
    try:
        return (root / path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolError(f"{path}: cannot be read: {error.strerror}") from error
