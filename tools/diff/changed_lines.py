"""Counts the lines in which two trees differ, ignoring a copy's own name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.diff.histogram import Budget, Counts, count
from tools.diff.text import split

# Steps of the inner loops that one comparison may take, far more than hand-written sources need.
MAX_STEPS = 8_000_000


def own_name_undone(content: bytes, old: str, new: str) -> bytes:
    """A file of the variant `new` with its origin's name in place of its own.

    `experiments.grug.moe` becomes `experiments.grug.base`, and so with slashes;
    `experiments.grug.moe2` is another name and stays.

    Args:
        old, new: the directories of origin and variant from the workspace's root, or "".
    """
    if not old or not new or old == new:
        return content
    for ours, theirs in ((new, old), (new.replace("/", "."), old.replace("/", "."))):
        pattern = rb"(?<![\w.])" + re.escape(ours.encode()) + rb"(?!\w)"
        content = re.sub(pattern, theirs.encode().replace(b"\\", rb"\\"), content)
    return content


def changed_lines(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> Counts:
    """Lines added and deleted over all paths; bytes between line feeds count as lines everywhere.

    Args:
        old, new: contents by path within each tree.
        names: the directories of both from the workspace's root, or "".
    """
    total = Counts(0, 0)
    budget = Budget(MAX_STEPS)
    for path in sorted(old.keys() | new.keys()):
        a, b = old.get(path, b""), own_name_undone(new.get(path, b""), *names)
        if a != b:
            total += count(split(a), split(b), budget)
    return total
