"""Files that one side of a merge has renamed, paired by content as the diff report pairs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.common.files import File, Tree
from tools.diff.changed_lines import MAX_STEPS
from tools.diff.histogram import Budget
from tools.diff.pairing import pairs


def renames(old: Tree, new: Tree) -> dict[str, str]:
    """The new path of each file of `old` that `new` has under another path."""
    sides = [{path: file.content for path, file in tree.items()} for tree in (old, new)]
    return {a: b for a, b in pairs(*sides, Budget(MAX_STEPS)) if a and b and a != b}


def moved(tree: Tree, paths: Mapping[str, str]) -> dict[str, File]:
    """The tree with the files at the keys of `paths` at their values instead."""
    return {paths.get(path, path): file for path, file in tree.items()}


@dataclass(frozen=True)
class Aligned:
    """Three trees to merge, in which a file has one path; `clashes` maps paths to the reason."""

    ours: dict[str, File]
    base: dict[str, File]
    theirs: dict[str, File]
    clashes: dict[str, str]


def align(ours: Tree, base: Tree, theirs: Tree) -> Aligned:
    """The trees under the newest path of each file: that of the side which renamed it.

    A file that both sides renamed differently keeps both paths, and is a clash.
    """
    our_paths, their_paths = renames(base, ours), renames(base, theirs)
    clashes = {}
    for path in sorted(our_paths.keys() & their_paths.keys()):
        here, there = our_paths.pop(path), their_paths.pop(path)
        if here != there:
            clashes[here] = f"was {path}, and is {there} in the variant"
        else:
            base = moved(base, {path: here})
    paths = {p: new for p, new in their_paths.items() if new not in ours}
    ours, base = moved(ours, paths), moved(base, paths)
    paths = {p: new for p, new in our_paths.items() if new not in theirs}
    theirs, base = moved(theirs, paths), moved(base, paths)
    return Aligned(dict(ours), dict(base), dict(theirs), clashes)
