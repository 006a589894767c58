"""A copy's plumbing brought to what its origin's is now: a fast-forward, never a merge.

Imports within a variant are relative, so a copy's plumbing and planning are its origin's bytes. A
file that is byte for byte what the origin's once was is replaced; one that is not is the copy's own
and stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tools.common.files import File
from tools.common.repository import Repository
from tools.common.transaction import Change, carry_out
from tools.diff.plumbing import PLUMBING
from tools.lifecycle.drift import Pair, next_step, pairs

WORD = "plumbing"
"""What stands for it in the place of a commit."""


def forward(repo: Repository, given: Sequence[str]) -> list[str]:
    """Replaces what can be in the named copies, or in all living ones; gives what to print.

    Raises:
        ToolError: before anything is written: a copy has files that are not committed.
    """
    lines: list[str] = []
    change = Change("fast-forward of plumbing")
    for pair in pairs(repo, given):
        moved, own = _forward(repo, pair, change)
        files = "1 file" if moved == 1 else f"{moved} files"
        lines.append(f"{pair.copy.path}: {files} brought to {pair.origin.name}'s")
        lines += [f"{path}: is its own, and stays" for path in own]
    if change.seen:
        carry_out(repo.root, repo.state(), change)
    return [*lines, next_step(changed=bool(change.seen))]


def _forward(repo: Repository, pair: Pair, change: Change) -> tuple[int, list[str]]:
    """(files replaced, paths of the copy's own) of one copy; adds to `change` what to write."""
    moved, own = 0, []
    for part in PLUMBING:
        origin, copy = f"{pair.origin.path}/{part}", f"{pair.copy.path}/{part}"
        repo.refuse_dirty(copy)
        now, mine = repo.files("HEAD", origin), repo.working(copy)
        once = earlier(repo, origin)
        for name in sorted({*now, *mine}):
            if mine.get(name) == now.get(name):
                continue
            never_had = name not in mine and not repo.ask(
                "rev-list", "-1", "HEAD", "--", f"{copy}/{name}"
            )
            if never_had or mine.get(name) in once[name]:
                change.put(f"{copy}/{name}", mine.get(name), now.get(name))
                moved += 1
            else:
                own.append(f"{copy}/{name}")
    return moved, own


def earlier(repo: Repository, path: str) -> dict[str, list[File]]:
    """Every state that each file of a directory has had, by its path in it."""
    found: dict[str, list[File]] = defaultdict(list)
    for commit in repo.ask("rev-list", "HEAD", "--", path).split():
        for name, file in repo.files(commit, path).items():
            if file not in found[name]:
                found[name].append(file)
    return found
