"""Changing several files of the working tree: all, or none.

What will be written is prepared below the git directory, then a journal is put in place by one
rename, and from then on the change holds: its steps are carried out, each of which may be repeated,
and the journal is removed. A process that is killed before the rename has changed nothing; one that
is killed after it leaves a journal, from which `recover` finishes the work.

A step writes or removes a file only as it was planned on, as it will be, or not there at all: what
an editor saved in between is never lost.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import File

SCHEMA_VERSION = 1
JOURNAL, STAGED = "journal.json", "staged"
ABANDON = "python -m tools.lifecycle recover --abandon"


@dataclass
class Change:
    """What is to become of the working tree; paths from the workspace's root."""

    what: str
    """Said of it when it is finished later."""
    seen: dict[str, str | None] = field(default_factory=dict)
    """Fingerprints that the plan rests on; each is looked at again before the change holds."""
    writes: dict[str, File] = field(default_factory=dict)
    removes: list[str] = field(default_factory=list)
    discards: list[str] = field(default_factory=list)
    """Files and directories that git ignores: removed with all they hold."""
    prunes: list[str] = field(default_factory=list)
    """Directories to remove with their directories, as far as no file is left in them."""

    def rest_on(self, path: str, was: File | None) -> None:
        """Notes what was read there, or that nothing was."""
        self.seen[path] = _of(was.content, was.mode == "executable") if was else None

    def put(self, path: str, was: File | None, file: File | None) -> None:
        """Writes a file in the place of what was read there, or removes it."""
        self.rest_on(path, was)
        if file is None:
            self.removes.append(path)
        else:
            self.writes[path] = file


def read_file(path: Path) -> File:
    """A file of the working tree with its mode."""
    content = path.read_bytes()
    return File(content, "executable" if path.stat().st_mode & stat.S_IXUSR else "file")


def fingerprint(path: Path) -> str | None:
    """What a path is, by content; None where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISREG(mode):
        return _of(path.read_bytes(), bool(mode & stat.S_IXUSR))
    return f"link {os.readlink(path)}" if stat.S_ISLNK(mode) else f"kind {stat.S_IFMT(mode):o}"


def _of(content: bytes, executable: bool) -> str:
    return f"{'executable' if executable else 'file'} {hashlib.sha256(content).hexdigest()}"


@contextmanager
def locked(state: Path) -> Generator[None]:
    """Keeps other commands away; the lock ends with the process. Raises ToolError."""
    state.mkdir(parents=True, exist_ok=True)
    with open(state / "lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ToolError("another such command is at work here: wait for it") from error
        yield


def carry_out(root: Path, state: Path, change: Change) -> None:
    """Makes the change, or raises ToolError before anything has changed."""
    try:
        journal = _prepare(root, state / STAGED, change)
    except BaseException:
        shutil.rmtree(state / STAGED, ignore_errors=True)
        raise
    os.replace(state / STAGED / JOURNAL, state / JOURNAL)
    _sync(state)
    _finish(root, state, journal)


def _prepare(root: Path, staged: Path, change: Change) -> dict[str, Any]:
    """The journal, written with all that it needs, once nothing is seen to stand against it."""
    staged.mkdir(parents=True)
    steps: list[dict[str, Any]] = []
    for number, (path, file) in enumerate(sorted(change.writes.items())):
        _write(staged / str(number), file.content, 0o666)
        after = _of(file.content, file.mode == "executable")
        step = {"do": "write", "path": path, "before": change.seen[path], "after": after}
        steps.append(step | {"staged": str(number)})
    removes = sorted(change.removes)
    steps += [{"do": "remove", "path": p, "before": change.seen[p]} for p in removes]
    steps += [{"do": "discard", "path": path} for path in sorted(change.discards)]
    steps += [{"do": "prune", "path": path} for path in sorted(change.prunes)]
    journal = {"schema_version": SCHEMA_VERSION, "what": change.what, "steps": steps}
    _write(staged / JOURNAL, json.dumps(journal, indent=1).encode(), 0o666)
    _sync(staged)
    for step in steps:
        _stay_inside(root, step["path"])
        if (step.get("before") or "file").startswith(("link", "kind")):
            raise ToolError(f"{step['path']}: is no regular file: nothing is done")
    for path, before in change.seen.items():
        if fingerprint(root / path) != before:
            raise ToolError(f"{path}: was changed meanwhile, nothing is done: run it again")
    return journal


def recover(root: Path, state: Path) -> str | None:
    """Finishes what was interrupted, or sweeps what never began; a line of what it did, or None.

    Raises:
        ToolError: a file was edited since, or the journal cannot be read.
    """
    if (state / JOURNAL).exists():
        try:
            journal = json.loads((state / JOURNAL).read_bytes())
            if journal["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {journal['schema_version']}")
        except (ValueError, KeyError, TypeError) as error:
            message = f"{state / JOURNAL}: cannot be read ({error}); {ABANDON} forgets it"
            raise ToolError(message) from error
        _finish(root, state, journal)
        return f"finished what was interrupted: {journal['what']}"
    if (state / STAGED).exists():
        shutil.rmtree(state / STAGED)
        return "swept what an interrupted command left behind"
    return None


def abandon(state: Path) -> str:
    """Forgets an interrupted change; files stay as they are."""
    there = (state / JOURNAL).exists()
    (state / JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(state / STAGED, ignore_errors=True)
    return "forgot what was interrupted; files are as it left them" if there else "nothing to do"


def _finish(root: Path, state: Path, journal: Mapping[str, Any]) -> None:
    for step in journal["steps"]:
        _stay_inside(root, step["path"])
        path = root / step["path"]
        if step["do"] in ("write", "remove"):
            now = fingerprint(path)
            if now not in (None, step["before"], step.get("after")):
                message = (
                    f"{step['path']}: was edited while this was interrupted: {journal['what']}; "
                    f"move it away and run again to finish, or leave all as it is: {ABANDON}"
                )
                raise ToolError(message)
            if step["do"] == "write" and now != step["after"]:
                _place(path, state / STAGED / step["staged"], step["after"])
            elif step["do"] == "remove" and now is not None:
                path.unlink()
                _sync(path.parent)
        elif step["do"] == "discard":
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        else:
            _prune(path)
    (state / JOURNAL).unlink()
    _sync(state)
    shutil.rmtree(state / STAGED)


def _place(path: Path, staged: Path, after: str) -> None:
    """Puts a prepared file in its place by one rename; its permissions stay, but for the run bit.

    The rename is within the directory: the git directory may lie on another file system.
    """
    content, executable = staged.read_bytes(), after.startswith("executable")
    if _of(content, executable) != after:
        raise ToolError(f"{staged}: is damaged; {ABANDON} forgets the change")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.grug")
    temporary.unlink(missing_ok=True)
    _write(temporary, content, 0o777 if executable else 0o666)
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)
        os.chmod(temporary, mode | (mode & 0o444) >> 2 if executable else mode & ~0o111)
    os.replace(temporary, path)
    _sync(path.parent)


def _prune(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        if not os.listdir(directory):
            os.rmdir(directory)


def _stay_inside(root: Path, path: str) -> None:
    place = (root / path).parent.resolve()
    if ".." in Path(path).parts or not place.is_relative_to(root.resolve()):
        raise ToolError(f"{path}: leads out of the workspace: nothing is done")


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(directory: Path) -> None:
    """Makes what was renamed or removed in a directory outlast a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
