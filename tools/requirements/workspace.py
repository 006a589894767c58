"""The resolves of the workspace: what each asks for, and the lock that answers it."""

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
"""Resolves that a variant's bundles install, and which therefore agree on JAX."""


@dataclass(frozen=True)
class Resolve:
    """Paths from the workspace's root. Not every resolve has a listing: BUILD files may ask too."""

    name: str
    lock: str

    @property
    def listing(self) -> str:
        """The file of its direct requirements, one per line: tools/locks/cpu.in."""
        return PurePosixPath(self.lock).with_suffix(".in").as_posix()


def resolves(root: Path) -> dict[str, Resolve]:
    """The resolves that pants.toml names. Raises ToolError where it cannot be read."""
    try:
        config = tomllib.loads((root / CONFIG).read_text("utf-8"))
        named = config["python"]["resolves"]
    except OSError as error:
        message = f"{root / CONFIG}: {error.strerror}: name the workspace with --root"
        raise ToolError(message) from error
    except (ValueError, KeyError) as error:
        raise ToolError(f"{CONFIG}: names no [python.resolves]: {error}") from error
    return {name: Resolve(name, lock) for name, lock in sorted(named.items())}


def choose(known: Mapping[str, Resolve], names: Iterable[str]) -> list[Resolve]:
    """Those resolves, each once, by name. Raises ToolError where one is not known."""
    chosen = sorted(set(names))
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ToolError(f"{CONFIG}: [python.resolves] has no {name!r}; {remedy}")
    return [known[name] for name in chosen]


def accelerators(known: Mapping[str, Resolve]) -> list[Resolve]:
    """The resolves that variants run in."""
    return [known[name] for name in ACCELERATORS if name in known]


def read(root: Path, path: str) -> bytes | None:
    """A file of the workspace; None where there is none. Raises ToolError."""
    try:
        return (root / path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ToolError(f"{path}: cannot be read: {error.strerror}") from error
