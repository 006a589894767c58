"""Trees of files to compare: a directory, a file, or a path in a commit, deleted ones included."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.diff.errors import DiffError

# Left by tools beside sources, never part of a variant.
IGNORED = ("__pycache__", ".git", ".hypothesis", ".pytest_cache", ".ruff_cache")


Mode = Literal["file", "executable", "link", "submodule"]


@dataclass(frozen=True)
class File:
    """A file's bytes; of a symbolic link, the path it leads to; of a submodule, its commit."""

    content: bytes
    mode: Mode = "file"


Tree = Mapping[str, File]

_MODES: dict[bytes, Mode] = {
    b"100644": "file",
    b"100755": "executable",
    b"120000": "link",
    b"160000": "submodule",
}


@dataclass(frozen=True)
class Source:
    """A tree, with the path it has from the workspace's root (empty where it has none)."""

    name: str
    tree: Tree


def read(given: str, git_dir: str | None = None) -> Source:
    """What a command line names: a path that exists, or REF:PATH in git's objects.

    Raises:
        DiffError: there is no such path, ref or repository.
    """
    path = Path(given)
    if path.exists():
        return Source(workspace_name(given), read_path(path))
    ref, colon, inside = given.partition(":")
    if not colon:
        raise DiffError(
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
        raise DiffError(f"{path}: {error.strerror}; make it readable") from error
    return File(content, "executable" if os.access(path, os.X_OK) else "file")


def read_git(ref: str, path: str, git_dir: str | None = None) -> dict[str, File]:
    """The files below `path` (or the file itself) in a commit, tag or branch."""
    where = path.strip("/")
    named = f"{ref}:{where}"
    if not ref or ref.startswith("-"):
        raise DiffError(f"{named}: {ref!r} is no commit; write REF:PATH, as in main:{where}")
    if _git(git_dir, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}") is None:
        raise DiffError(
            f"{named}: git knows no commit {ref!r}; `git log --all -- {where}` lists those that "
            "touched the path (a shallow clone needs `git fetch --unshallow`)"
        )
    # Spelled in full: "REF:./PATH" would be read from the current directory.
    kind = _git(git_dir, "cat-file", "-t", named)
    if kind is None:
        raise DiffError(
            f"{named}: the commit has no such path; `git log --all -- {where}` lists those that do"
        )
    if kind.strip() == b"blob":
        name = where.rpartition("/")[2]
        return {name: File(_git(git_dir, "cat-file", "blob", named) or b"")}
    entries: list[tuple[str, Mode, bytes]] = []
    for line in (_git(git_dir, "ls-tree", "-r", "-z", named) or b"").split(b"\0"):
        if line:
            head, _, name = line.partition(b"\t")
            mode, _, digest = head.split()
            inside = name.decode("utf-8", "surrogateescape")
            if not _ignored(inside):
                entries.append((inside, _MODES.get(mode, "file"), digest))
    blobs = _blobs(git_dir, [digest for _, mode, digest in entries if mode != "submodule"])
    return {
        inside: File(blobs.get(digest, digest), mode) for inside, mode, digest in sorted(entries)
    }


def _git(git_dir: str | None, *arguments: str, stdin: bytes = b"") -> bytes | None:
    """What git prints; None where it fails."""
    where = [f"--git-dir={git_dir}"] if git_dir else []
    try:
        done = subprocess.run(["git", *where, *arguments], input=stdin, capture_output=True)
    except FileNotFoundError as error:
        raise DiffError("git is not installed, which REF:PATH needs") from error
    return done.stdout if done.returncode == 0 else None


def _blobs(git_dir: str | None, digests: list[bytes]) -> dict[bytes, bytes]:
    asked = b"".join(digest + b"\n" for digest in digests)
    answer = _git(git_dir, "cat-file", "--batch", stdin=asked) or b""
    found, at = {}, 0
    while at < len(answer):
        end = answer.index(b"\n", at)
        digest, _, size = answer[at:end].split()
        found[digest] = answer[end + 1 : end + 1 + int(size)]
        at = end + 1 + int(size) + 1
    return found
