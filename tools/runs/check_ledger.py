"""Checks the ledger against git, the variants' directories and the run summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.git import Git
from tools.ledger.files import entry_file, place
from tools.ledger.ledger import AREA, LEDGER, Entry, read, read_ledger
from tools.runs import kept_sources, run_summary

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_PLACES = ("forked at", "introduced", "last known-good")

Fault = tuple[str, int, str]
"""Path from the workspace's root, line, message with its remedy."""


def check(root: Path, git_dir: Path | None = None) -> list[str]:
    """Every fault of the workspace's archive, as `path:line: message`; empty if there is none.

    Args:
        root: the workspace.
        git_dir: its repository; by default the one that `root` lies in.

    Raises:
        ToolError: the ledger cannot be read, or there is no repository.
    """
    text = read_ledger(root)
    entries, ledger_faults = read(text)
    faults: list[Fault] = [(LEDGER, line, message) for line, message in ledger_faults]
    faults += directories(root, entries)
    faults += commits(entries, root, git_dir)
    runs, malformed = run_summary.load_all(root)
    names = {entry.name for entry in entries}
    for run in runs:
        if run.variant not in names:
            message = f"{run.variant!r} is not recorded: add {entry_file(run.variant)}"
            faults.append((run.path, 3, message))
    faults = [
        (*place(text, line), message) if path == LEDGER else (path, line, message)
        for path, line, message in faults
    ]
    lines = [f"{path}:{line}: {message}" for path, line, message in sorted(faults)]
    return lines + malformed + kept_sources.check(root, runs)


def directories(root: Path, entries: Iterable[Entry]) -> list[Fault]:
    """Mismatches between the variants' directories and the ledger's entries."""
    faults: list[Fault] = []
    live = {entry.path for entry in entries if entry.status != "deleted"}
    deleted = {entry.path for entry in entries if entry.status == "deleted"}
    for build in sorted((root / AREA).glob("*/BUILD")):
        path = build.parent.relative_to(root).as_posix()
        if path not in live | deleted:
            remedy = f"add {entry_file(build.parent.name)}, or remove the directory"
            faults.append((f"{path}/BUILD", 1, f"{path} is not recorded: {remedy}"))
    for entry in entries:
        if not entry.path:
            continue
        line = entry.lines["path"]
        exists = (root / entry.path).is_dir()
        if entry.status == "active" and not exists:
            message = (
                f"{entry.name} is active, but {entry.path} is not there: put it back, or set "
                "'status: deleted' and '- last known-good: COMMIT'"
            )
            faults.append((LEDGER, line, message))
        elif entry.status == "deleted" and exists and entry.path not in live:
            message = (
                f"{entry.name} is deleted, but {entry.path} is there: remove the directory, or "
                "set 'status: active'"
            )
            faults.append((LEDGER, line, message))
    return faults


def commits(entries: Iterable[Entry], root: Path, git_dir: Path | None) -> list[Fault]:
    """Fields that name no commit known to git. Raises ToolError if there is no repository."""
    entries = list(entries)
    names = {entry.name for entry in entries}
    references: list[tuple[int, str, str, str]] = []
    for entry in entries:
        for key in _PLACES:
            value = entry.fields.get(key, "")
            if value and not (key == "introduced" and value == "pending"):
                references.append((entry.lines[key], entry.name, key, value))
        if entry.superseded_by and entry.superseded_by not in names:
            line = entry.lines["superseded by"]
            references.append((line, entry.name, "superseded by", entry.superseded_by))
    git = Git(root, git_dir, fetches=False)
    try:
        existing = git.known_commits(
            {value for *_, value in references if _COMMIT.fullmatch(value)}
        )
    except ToolError as error:
        raise ToolError(f"{error}: name the repository with --git-dir DIR") from error
    faults: list[Fault] = []
    for line, name, key, value in references:
        if not _COMMIT.fullmatch(value):
            rule = "a commit: 7 or more hexadecimal digits"
            if key == "superseded by":
                rule = f"an experiment of this ledger, nor {rule}"
            alternative = ", or 'pending'" if key == "introduced" else ""
            faults.append((LEDGER, line, f"{name}: {key}: {value!r} is not {rule}{alternative}"))
        elif value not in existing:
            remedy = "correct it, or fetch it (git fetch --unshallow in a shallow clone)"
            faults.append((LEDGER, line, f"{name}: {key}: git knows no commit {value}: {remedy}"))
    return faults
