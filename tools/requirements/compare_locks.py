"""Locks compared as they are: two files, or those of the workspace with a commit's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.bundle.lock import Lock
from tools.common.errors import ToolError
from tools.common.repository import Repository
from tools.requirements.changes import LockChange, compare
from tools.requirements.workspace import choose, read, resolves


def files(old: Path, new: Path) -> LockChange:
    """Raises ToolError where one can't be read."""
    locks = []
    for path in (old, new):
        try:
            locks.append(Lock.parse(path.read_bytes().decode(), str(path)))
        except (OSError, UnicodeDecodeError) as error:
            raise ToolError(f"{path}: cannot be read: {error}") from error
    return compare(str(new), *locks)


def against(repo: Repository, names: Sequence[str], ref: str) -> dict[str, LockChange]:
    """How the locks of some resolves, or of all, differ from those of a commit, by resolve.

    Raises:
        ToolError: an unknown resolve or commit.
        ToolError: a lock that can't be read.
    """
    known = resolves(repo.root)
    chosen = choose(known, names or known)
    commit = repo.commit(ref)
    if commit is None:
        raise ToolError(f"git knows no commit {ref!r}: name one with --against")
    found = {}
    for resolve in chosen:
        before = repo.content(commit, resolve.lock)
        after = read(repo.root, resolve.lock)
        if before != after:
            was, now = (
                Lock.parse(content.decode(), f"{where}{resolve.lock}") if content else None
                for where, content in ((f"{ref}:", before), ("", after))
            )
            found[resolve.name] = compare(resolve.lock, was, now)
    return found
