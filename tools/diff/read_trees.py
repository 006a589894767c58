"""Trees of files to compare: a directory, a file, or a path in a commit, deleted ones included."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Tree
from tools.common.git import Git

# Left by tools beside sources, never part of a variant.
IGNORED = ("__pycache__", ".git", ".hypothesis", ".pytest_cache", ".ruff_cache")


@dataclass(frozen=True)
class Source:
    """A tree, with the path it has from the workspace's root (empty where it has none)."""

    name: str
    tree: Tree


def read(given: str, git_dir: str | None = None) -> Source:
    """What a command line names: a path that exists, or REF:PATH in git's objects.

    Raises:
        ToolError: there is no such path, ref or repository.
    """
    path = Path(given)
    if path.exists():
        return Source(workspace_name(given), read_path(path))
    ref, colon, inside = given.partition(":")
    if not colon:
        raise ToolError(
            f"{given}: no such file or directory; for one that was deleted write COMMIT:{given}"
        )
    return Source(workspace_name(inside), read_git(ref, inside, git_dir))


def workspace_name(path: str) -> str:
    """The path from the workspace's root, as far as it can be told: from `experiments/` on."""
    parts = [part for part in Path(os.path.normpath(path)).parts if part not in ("/", ".", "..")]
    if "experiments" in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index("experiments") :]
    elif os.path.isabs(path):
        parts = parts[-2:]
    return "/".join(parts)


def _ignored(path: str) -> bool:
    return path.endswith(".pyc") or not set(IGNORED).isdisjoint(path.split("/"))


def read_path(root: Path) -> dict[str, File]:
    """The files of a directory, or the one file. Links are not followed."""
    if not root.is_dir():
        return {root.name: _read_file(root)}
    found = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in IGNORED)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            path = Path(directory, name)
            inside = path.relative_to(root).as_posix()
            if not _ignored(inside) and (path.is_symlink() or path.is_file()):
                found[inside] = _read_file(path)
    return dict(sorted(found.items()))


def _read_file(path: Path) -> File:
    if path.is_symlink():
        return File(os.fsencode(os.readlink(path)), "link")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; make it readable") from error
    return File(content, "executable" if os.access(path, os.X_OK) else "file")


def read_git(ref: str, path: str, git_dir: str | None = None) -> Tree:
    """The files below `path` (or the file itself) in a commit, tag or branch. Raises ToolError."""
    where = path.strip("/")
    named = f"{ref}:{where}"
    if not ref or ref.startswith("-"):
        raise ToolError(f"{named}: {ref!r} is no commit; write REF:PATH, as in main:{where}")
    git = Git(git_dir=Path(git_dir) if git_dir else None)
    if git.commit(ref) is None:
        raise ToolError(
            f"{named}: git knows no commit {ref!r}; `git log --all -- {where}` lists those that "
            "touched the path (a shallow clone needs `git fetch --unshallow`)"
        )
    tree = git.tree(ref, where)
    if tree is None:
        raise ToolError(
            f"{named}: the commit has no such path; `git log --all -- {where}` lists those that do"
        )
    return {inside: file for inside, file in tree.items() if not _ignored(inside)}
