"""The size of a variant, and the number of lines in which it differs from its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.diff.changed_lines import MAX_STEPS, changed_lines
from tools.diff.histogram import Budget, Counts
from tools.diff.pairing import pairs
from tools.diff.plumbing import is_plumbing


@dataclass(frozen=True)
class Facts:
    """Counts of one variant's Python files and data; the last two are None without an origin."""

    files: int
    lines: int
    changed: Counts | None
    own_plumbing: int | None
    """Files of plumbing and planning that differ from the origin's, byte for byte."""


def compare(
    variant: Mapping[str, bytes], origin: Mapping[str, bytes] | None, names: tuple[str, str]
) -> Facts:
    """Facts of a variant's files against its origin's; a copy's own name is not a change.

    Args:
        variant: its contents, by path within its directory.
        origin: the origin's contents, by path within its directory.
        names: the directories of variant and origin, from the workspace's root.
    """
    lines = sum(len(content.splitlines()) for content in variant.values())
    if origin is None:
        return Facts(len(variant), lines, None, None)
    directory, source = names
    changed = changed_lines(origin, variant, (source, directory))
    return Facts(len(variant), lines, changed, own_plumbing(variant, origin))


def own_plumbing(variant: Mapping[str, bytes], origin: Mapping[str, bytes]) -> int | None:
    """The number of files of plumbing and planning that differ, or that only one of the two has.

    None if the variant has no plumbing, like a speedrun of one file.
    """
    if not any(map(is_plumbing, variant)):
        return None
    return sum(
        theirs != ours or origin[theirs or ""] != variant[ours or ""]
        for theirs, ours in pairs(origin, variant, Budget(MAX_STEPS))
        if is_plumbing(theirs or "") or is_plumbing(ours or "")
    )
