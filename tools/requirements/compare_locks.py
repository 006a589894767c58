"""Compares two lock files, or the workspace's locks with those of a commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.bundle.lock import Lock
from tools.common.errors import ToolError
from tools.common.repository import Repository
from tools.requirements.changes import LockChange, compare
from tools.requirements.workspace import choose, read, resolves


def files(old: Path, new: Path) -> LockChange:
    """The differences between two lock files. Raises ToolError if one cannot be read."""
    locks = []
    for path in (old, new):
        try:
            locks.append(Lock.parse(path.read_bytes().decode(), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8"
            raise ToolError(
                f"{path}: cannot be read: {reason}; name two lock files, or resolves"
            ) from error
    return compare(str(new), *locks)


def against(repo: Repository, names: Sequence[str], ref: str) -> dict[str, LockChange]:
    """The differences of some resolves' locks, or of all, from those of a commit, by resolve.

    Raises:
        ToolError: a resolve or the commit is unknown, or a lock cannot be read.
    """
    all_resolves = resolves(repo.root)
    chosen = choose(all_resolves, names or all_resolves)
    commit = repo.commit(ref)
    if commit is None:
        raise ToolError(f"git knows no commit {ref!r}: name one with --against")
    differences = {}
    for resolve in chosen:
        before = repo.content(commit, resolve.lock)
        after = read(repo.root, resolve.lock)
        if before != after:
            old_lock, new_lock = (
                Lock.parse(content.decode(), f"{prefix}{resolve.lock}") if content else None
                for prefix, content in ((f"{ref}:", before), ("", after))
            )
            differences[resolve.name] = compare(resolve.lock, old_lock, new_lock)
    return differences
