"""Brings a copy's plumbing up to date with its origin's: a fast-forward, never a merge.

Imports within a variant are relative, so a copy's plumbing and planning are its origin's bytes. A
file that equals, byte for byte, any earlier state of the origin's file is replaced; any other is
the copy's own and stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tools.common.files import File
from tools.common.repository import Repository
from tools.common.transaction import Change
from tools.diff.plumbing import PLUMBING
from tools.lifecycle.drift import Pair, next_step, pairs
from tools.lifecycle.written import write

WORD = "plumbing"
"""The value of `drift --apply` that asks for it instead of a commit."""


def forward(repo: Repository, names: Sequence[str]) -> list[str]:
    """Fast-forwards the named copies, or all living ones, and returns the lines to print.

    Raises:
        ToolError: a copy has files that are not committed; nothing is written.
    """
    lines: list[str] = []
    change = Change("fast-forward of plumbing")
    for pair in pairs(repo, names):
        moved, own = _forward(repo, pair, change)
        files = "1 file" if moved == 1 else f"{moved} files"
        lines.append(f"{pair.copy.path}: {files} brought to {pair.origin.name}'s")
        lines += [f"{path}: is its own, and stays" for path in own]
    command = write(repo, change) if change.fingerprints else ""
    return [*lines, next_step(command)]


def _forward(repo: Repository, pair: Pair, change: Change) -> tuple[int, list[str]]:
    """(number of files replaced, paths of the copy's own files); adds the writes to `change`."""
    moved, own = 0, []
    for part in PLUMBING:
        origin, copy = f"{pair.origin.path}/{part}", f"{pair.copy.path}/{part}"
        repo.refuse_dirty(copy)
        theirs, ours = repo.files("HEAD", origin), repo.working(copy)
        history = earlier(repo, origin)
        for name in sorted({*theirs, *ours}):
            if ours.get(name) == theirs.get(name):
                continue
            places = (f"{directory}/{part}/{name}" for directory in pair.copy.directories)
            never_had = name not in ours and not repo.ask("rev-list", "-1", "HEAD", "--", *places)
            if never_had or ours.get(name) in history[name]:
                change.put(f"{copy}/{name}", ours.get(name), theirs.get(name))
                moved += 1
            else:
                own.append(f"{copy}/{name}")
    return moved, own


def earlier(repo: Repository, path: str) -> dict[str, list[File]]:
    """Every committed state of each file of a directory, by its path within."""
    states: dict[str, list[File]] = defaultdict(list)
    for commit in repo.ask("rev-list", "HEAD", "--", path).split():
        for name, file in repo.files(commit, path).items():
            if file not in states[name]:
                states[name].append(file)
    return states
