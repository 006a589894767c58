"""Makes a command's change, puts it into git's index if that is asked for, and says how to commit.

The line it gives names all that the command wrote or removed, and nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from tools.common.repository import Repository
from tools.common.transaction import Change, carry_out
from tools.ledger.kept_trees import KEPT
from tools.ledger.ledger import AREA
from tools.runs.run_summary import RUNS

# Of a directory below these, the line names the directory, not each file.
_GROUPS = (AREA, RUNS, KEPT)


def write(
    repo: Repository, change: Change, beside: Iterable[str] = (), *, conflicted: bool = False
) -> str:
    """Carries out a change and returns the command that commits it.

    Args:
        repo: the workspace; its `stages` says whether to put the change into git's index.
        change: what the command does.
        beside: other paths that the commit needs, such as records that nobody committed yet.
        conflicted: whether the change holds conflicts. They are not staged: git would take them as
            resolved, and `git diff` would not show them.

    Raises:
        ToolError: a file has changed meanwhile, or git refuses what it is given.
    """
    carry_out(repo.root, repo.state(), change)
    paths = sorted({*change.writes, *change.removes, *beside})
    if repo.stages and not conflicted:
        repo.stage(paths)
        return "git commit"
    return f"git add --all {shlex.join(sorted(set(map(_group, paths))))} && git commit"


def _group(path: str) -> str:
    for group in _GROUPS:
        if path.startswith(f"{group}/"):
            return f"{group}/{path.removeprefix(f'{group}/').partition('/')[0]}"
    return path
