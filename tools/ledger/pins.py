"""Where a directory's content is in history, as the ledger says it: `COMMIT tree TREE`.

A squash merge or a rebase drops a branch's commits, and no later clone has them. TREE, git's id of
the directory's content, names the same files wherever they are. An older ledger has COMMIT alone;
`tree TREE` stands where no commit that is left has the content, which is then kept beside the
ledger (kept_trees.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import Tree
from tools.common.git import Git
from tools.ledger import kept_trees

SHORT = 12
"""Digits of an id that the ledger keeps."""
REMEDY = "./pants relink"

_ID = "[0-9a-f]{7,64}"
_PIN = re.compile(rf"(?:({_ID})(?: tree ({_ID}))?|tree ({_ID}))")


@dataclass(frozen=True)
class Pin:
    """A commit and the tree of a directory in it, shortened; one of the two may be empty."""

    commit: str
    tree: str

    def __str__(self) -> str:
        tree = f"tree {self.tree[:SHORT]}" if self.tree else ""
        return f"{self.commit[:SHORT]} {tree}".strip()

    @property
    def label(self) -> str:
        """What pages call it: its commit, or else its tree."""
        return self.commit or f"tree {self.tree}"


def parse(text: str) -> Pin | None:
    """The pin that a field holds; None if it holds something else."""
    match = _PIN.fullmatch(text)
    return Pin(match[1] or "", match[2] or match[3] or "") if match else None


def at(git: Git, commit: str, path: str) -> Pin:
    """The pin of a directory in a commit."""
    return Pin(commit[:SHORT], git.object(commit, path)[:SHORT])


def tips(git: Git) -> tuple[str, ...]:
    """The commits whose history is searched: what is checked out, and the main branch."""
    return ("HEAD", *git.main_branches())


def find(git: Git, pin: Pin, path: str, among: tuple[str, ...] = ()) -> str | None:
    """The full digest of the commit that a pin means; None if there is none.

    It is the pin's own, if it comes before one of the tips `among` (default: `tips`); else the
    newest such commit in which the directory `path` has the same content.
    """
    among = among or tips(git)
    commit = git.commit(pin.commit)
    if commit and git.is_reachable(commit, *among):
        return commit
    tree = pin.tree or (git.object(commit, path) if commit else "")
    return newest_with(git, tree, path, among) if tree else None


def newest_with(git: Git, tree: str, path: str, among: tuple[str, ...]) -> str | None:
    """The newest commit before the tips in which directory `path` has this tree, if any."""
    trees = git.trees(path, among)
    return next((commit for name, commit in trees.items() if name.startswith(tree)), None)


def files(git: Git, pin: Pin, path: str) -> Tree:
    """The files of directory `path` that a pin names, from a commit or from what is kept.

    Raises:
        ToolError: neither has them; the message says what to do.
    """
    if commit := find(git, pin, path):
        if (tree := git.tree(commit, git.prefix + path)) is not None:
            return tree
        raise ToolError(f"{path}: is not in {commit[:SHORT]}, which the ledger names: correct it")
    if pin.tree and (git.root / kept_trees.place(pin.tree)).is_file():
        return kept_trees.load(git, pin.tree)
    # What a branch left behind in this clone alone is as good as any, while it is there.
    if pin.commit and (tree := git.tree(pin.commit, git.prefix + path)) is not None:
        return tree
    raise ToolError(f"{path}: {missing(git, pin)}")


def missing(git: Git, pin: Pin) -> str:
    """Why nothing has a pin's content, and what to do about it."""
    if (git.answer("rev-parse", "--is-shallow-repository") or b"").strip() == b"true":
        return f"git knows no commit {pin.label}: fetch it (git fetch --unshallow)"
    if pin.commit and not pin.tree and git.commit(pin.commit) is None:
        return (
            f"git knows no commit {pin.commit}: correct it, fetch it (git fetch origin BRANCH), or "
            f"in a clone that has it {REMEDY}"
        )
    return (
        f"no commit that is left has the content of {pin.label}, and it is not kept: {REMEDY}, "
        "in a clone that still has the branch"
    )


def only_here(pin: Pin) -> str:
    """What is wrong with a commit that only the branch that is checked out has."""
    return (
        f"only this branch has {pin.commit[:SHORT]}, and a squash merge would drop it: {REMEDY} "
        "keeps what it holds"
    )


def kept(root: Path, pin: Pin) -> bool:
    """Whether a pin's content is kept beside the ledger."""
    return bool(pin.tree) and (root / kept_trees.place(pin.tree)).is_file()
