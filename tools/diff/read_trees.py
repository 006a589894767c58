"""Reads trees of files to compare: a directory, a file, or a path in a commit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Tree
from tools.common.git import Git

# Directories that tools leave beside sources; never part of a variant.
IGNORED = ("__pycache__", ".git", ".hypothesis", ".pytest_cache", ".ruff_cache")


@dataclass(frozen=True)
class Source:
    """A tree, and its path from the workspace's root (empty if unknown)."""

    name: str
    tree: Tree


def read(place: str, git_dir: str | None = None) -> Source:
    """The tree that a command line names: a path that exists, or REF:PATH in git's objects.

    Raises:
        ToolError: there is no such path, ref or repository.
    """
    path = Path(place)
    if path.exists():
        return Source(workspace_name(place), read_path(path))
    ref, colon, inside = place.partition(":")
    if not colon:
        raise ToolError(
            f"{place}: no such file or directory; for one that was deleted write COMMIT:{place}"
        )
    return Source(workspace_name(inside), read_git(ref, inside, git_dir))


def workspace_name(path: str) -> str:
    """A path from the workspace's root, as far as it shows: from `experiments/` on."""
    parts = [part for part in Path(os.path.normpath(path)).parts if part not in ("/", ".", "..")]
    if "experiments" in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index("experiments") :]
    elif os.path.isabs(path):
        parts = parts[-2:]
    return "/".join(parts)


def _ignored(path: str) -> bool:
    return path.endswith(".pyc") or not set(IGNORED).isdisjoint(path.split("/"))


def read_path(root: Path) -> dict[str, File]:
    """The files of a directory, or the one file. Links are not followed. Raises ToolError."""
    if not root.is_dir():
        return {root.name: _read_file(root)}
    tree = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in IGNORED)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            path = Path(directory, name)
            inside = path.relative_to(root).as_posix()
            if not _ignored(inside) and (path.is_symlink() or path.is_file()):
                tree[inside] = _read_file(path)
    return dict(sorted(tree.items()))


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
    inside_path = path.strip("/")
    full_name = f"{ref}:{inside_path}"
    if not ref or ref.startswith("-"):
        raise ToolError(
            f"{full_name}: {ref!r} is no commit; write REF:PATH, as in main:{inside_path}"
        )
    git = Git(git_dir=Path(git_dir) if git_dir else None)
    if git.commit(ref) is None:
        raise ToolError(
            f"{full_name}: git knows no commit {ref!r}; `git log --all -- {inside_path}` lists "
            "those that "
            "touched the path (a shallow clone needs `git fetch --unshallow`)"
        )
    tree = git.tree(ref, inside_path)
    if tree is None:
        raise ToolError(
            f"{full_name}: the commit has no such path; `git log --all -- {inside_path}` lists "
            "those that do"
        )
    return {inside: file for inside, file in tree.items() if not _ignored(inside)}
