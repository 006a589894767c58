"""Whether the ledger is true: its commits, its directories, the run summaries beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.git import Git
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
    """
    entries, wrong = read(read_ledger(root))
    faults: list[Fault] = [(LEDGER, line, message) for line, message in wrong]
    faults += directories(root, entries)
    faults += commits(entries, root, git_dir)
    runs, malformed = run_summary.load_all(root)
    names = {entry.name for entry in entries}
    for run in runs:
        if run.variant not in names:
            message = f"{run.variant!r} is not recorded: add '## {run.variant}' to {LEDGER}"
            faults.append((run.path, 3, message))
    said = [f"{path}:{line}: {message}" for path, line, message in sorted(faults)]
    return said + malformed + kept_sources.check(root, runs)


def directories(root: Path, entries: Iterable[Entry]) -> list[Fault]:
    """Where directories of variants and entries of the ledger do not match."""
    found: list[Fault] = []
    live = {entry.path for entry in entries if entry.status != "deleted"}
    deleted = {entry.path for entry in entries if entry.status == "deleted"}
    for build in sorted((root / AREA).glob("*/BUILD")):
        path = build.parent.relative_to(root).as_posix()
        if path not in live | deleted:
            remedy = f"add '## {build.parent.name}' to {LEDGER}, or remove the directory"
            found.append((f"{path}/BUILD", 1, f"{path} is not recorded: {remedy}"))
    for entry in entries:
        if not entry.path:
            continue
        line = entry.lines["path"]
        there = (root / entry.path).is_dir()
        if entry.status == "active" and not there:
            message = (
                f"{entry.name} is active, but {entry.path} is not there: put it back, or set "
                "'status: deleted' and '- last known-good: COMMIT'"
            )
            found.append((LEDGER, line, message))
        elif entry.status == "deleted" and there and entry.path not in live:
            message = (
                f"{entry.name} is deleted, but {entry.path} is there: remove the directory, or "
                "set 'status: active'"
            )
            found.append((LEDGER, line, message))
    return found


def commits(entries: Iterable[Entry], root: Path, git_dir: Path | None) -> list[Fault]:
    """Fields that name no commit git knows."""
    entries = list(entries)
    names = {entry.name for entry in entries}
    named: list[tuple[int, str, str, str]] = []
    for entry in entries:
        for key in _PLACES:
            value = entry.fields.get(key, "")
            if value and not (key == "introduced" and value == "pending"):
                named.append((entry.lines[key], entry.name, key, value))
        if entry.superseded_by and entry.superseded_by not in names:
            line = entry.lines["superseded by"]
            named.append((line, entry.name, "superseded by", entry.superseded_by))
    git = Git(root, git_dir, fetches=False)
    try:
        known = git.known_commits({value for *_, value in named if _COMMIT.fullmatch(value)})
    except ToolError as error:
        raise ToolError(f"{error}: name the repository with --git-dir DIR") from error
    found: list[Fault] = []
    for line, name, key, value in named:
        if not _COMMIT.fullmatch(value):
            what = "a commit: 7 or more hexadecimal digits"
            if key == "superseded by":
                what = f"an experiment of this ledger, nor {what}"
            also = ", or 'pending'" if key == "introduced" else ""
            found.append((LEDGER, line, f"{name}: {key}: {value!r} is not {what}{also}"))
        elif value not in known:
            remedy = "correct it, or fetch it (git fetch --unshallow in a shallow clone)"
            found.append((LEDGER, line, f"{name}: {key}: git knows no commit {value}: {remedy}"))
    return found
