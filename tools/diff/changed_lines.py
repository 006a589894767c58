"""Counts the lines in which two trees differ, ignoring a copy's own name and renamed files."""

from __future__ import annotations

from collections.abc import Mapping

from tools.common.names import Rename
from tools.diff.histogram import Budget, Counts, count
from tools.diff.pairing import pairs
from tools.diff.text import split

# Steps of the inner loops that the comparison of one file may take: far more than hand-written
# sources need.
MAX_STEPS = 8_000_000


def has_own_name(old: str, new: str) -> bool:
    """Whether two directories from the workspace's root are names that sources call them by.

    A short one is not: `moe` may be any variable, and `grug.moe` an attribute.
    """
    return old != new and min(old.count("/"), new.count("/")) >= 2


def own_names_aside(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> dict[str, bytes]:
    """The origin's files as `fork` copies them: with the variant's name in place of their own.

    A file that the variant has as it is in the origin stays so.

    Args:
        old, new: contents by path within each tree.
        names: the directories of both from the workspace's root, or "".
    """
    if not has_own_name(*names):
        return dict(old)
    rename = Rename(*names)
    return {
        path: data if new.get(path) == data else rename.loose(path, data)
        for path, data in old.items()
    }


def changed_lines(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> Counts:
    """Lines added and deleted over all files; bytes between line feeds count as lines everywhere.

    A renamed file is compared with what it was. A file that came or went without a line, and one
    with another name alone, counts as one line: only an untouched copy is 0 lines away.

    Args:
        old, new: contents by path within each tree.
        names: the directories of both from the workspace's root, or "".
    """
    total = Counts(0, 0)
    before = own_names_aside(old, new, names)
    for old_path, path in pairs(before, new, Budget(MAX_STEPS)):
        a, b = before.get(old_path or "", b""), new.get(path or "", b"")
        if a != b:
            total += count(split(a), split(b), Budget(MAX_STEPS))
        elif old_path != path:
            total += Counts(int(path is not None), int(old_path is not None))
    return total
