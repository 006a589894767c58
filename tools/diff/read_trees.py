"""Reads trees of files to compare: a directory, a file, or a path in a commit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File, Tree
from tools.common.git import Git

# What git and tools leave beside sources; in a commit they are part of it.
IGNORED = (".git", ".hypothesis", ".pytest_cache", ".ruff_cache")
# Bytecode's flags, bytes 4 to 8, if Python reads it whatever the source says (PEP 552).
_UNCHECKED = (1).to_bytes(4, "little")


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


def read_path(root: Path) -> dict[str, File]:
    """The files of a directory, or the one file. Links are not followed. Raises ToolError.

    Without caches: IGNORED, and bytecode that Python makes anew from the source beside it.
    """
    if not root.is_dir():
        return {root.name: _read_file(root)}
    tree = {}
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in IGNORED)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in (*files, *links):
            path = Path(directory, name)
            if name in IGNORED or not (path.is_symlink() or path.is_file()):
                continue
            file = _read_file(path)
            if not (_caches_source(path) and file.content[4:8] != _UNCHECKED):
                tree[path.relative_to(root).as_posix()] = file
    return dict(sorted(tree.items()))


def _caches_source(path: Path) -> bool:
    """Whether a file is the bytecode of a source that is there: `__pycache__/NAME.TAG.pyc`."""
    if path.parent.name != "__pycache__" or path.suffix != ".pyc" or path.is_symlink():
        return False
    return path.parent.with_name(f"{path.name.partition('.')[0]}.py").is_file()


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
    return tree
