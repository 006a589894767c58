"""How many lines separate two trees, a copy's own name left out of account."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.diff.histogram import Budget, Counts, count
from tools.diff.text import split

# Steps of the inner loops that one comparison may take, far beyond what sources of people need.
MAX_STEPS = 8_000_000


def own_name_undone(content: bytes, old: str, new: str) -> bytes:
    """A file of the variant `new` with its origin's name in the place of its own.

    `experiments.grug.moe` stands for `experiments.grug.base`, and so does `experiments/grug/moe`;
    `experiments.grug.moe2` is another's.

    Args:
        old, new: the directories of origin and variant from the workspace's root, or "".
    """
    if not old or not new or old == new:
        return content
    for ours, theirs in ((new, old), (new.replace("/", "."), old.replace("/", "."))):
        whole = rb"(?<![\w.])" + re.escape(ours.encode()) + rb"(?!\w)"
        content = re.sub(whole, theirs.encode().replace(b"\\", rb"\\"), content)
    return content


def changed_lines(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> Counts:
    """Lines added and deleted over all paths; binary files count as their bytes' lines.

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
