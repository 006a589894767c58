"""How large a variant is, and how many lines separate it from its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.diff.histogram import Counts, count


@dataclass(frozen=True)
class Facts:
    """Of one variant's Python files; `changed` is None where there is no origin to compare."""

    files: int
    lines: int
    changed: Counts | None


def compare(
    variant: Mapping[str, bytes], origin: Mapping[str, bytes] | None, names: tuple[str, str]
) -> Facts:
    """Facts of a variant's files against its origin's.

    A copy's own dotted and slashed name is not a change: `experiments.grug.moe` in the variant
    stands for `experiments.grug.base` in its origin.

    Args:
        variant: contents by path within the directory.
        origin: the same of the origin's directory.
        names: the directories of variant and origin, from the workspace's root.
    """
    lines = sum(len(content.splitlines()) for content in variant.values())
    if origin is None:
        return Facts(len(variant), lines, None)
    own, other = ((n.encode(), n.replace("/", ".").encode()) for n in names)
    total = Counts(0, 0)
    for path in variant.keys() | origin.keys():
        new = variant.get(path, b"")
        for ours, theirs in zip(own, other, strict=True):
            new = new.replace(ours, theirs)
        old = origin.get(path, b"")
        if new != old:
            total += count(old.splitlines(keepends=True), new.splitlines(keepends=True))
    return Facts(len(variant), lines, total)
