"""Counts the lines in which two trees differ, ignoring a copy's own name and renamed files."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.common.names import Rename
from tools.diff.histogram import Budget, Counts, count
from tools.diff.pairing import pairs
from tools.diff.text import split

# Steps of the inner loops that the comparison of one file may take: far more than hand-written
# sources need.
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


def own_names_aside(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Both trees as they are compared: what `fork` rewrites is no difference.

    The origin's files are renamed as a copy's are, and then the name is undone on both sides. So a
    copy that nobody touched equals its origin, even if the origin named the copy before.

    Args:
        old, new: contents by path within each tree.
        names: the directories of both from the workspace's root, or "".
    """
    source, directory = names
    sides = dict(old), {p: own_name_undone(data, *names) for p, data in new.items()}
    if not source or not directory or source == directory:
        return sides
    rename = Rename(source, directory)
    for path, data in old.items():
        copied = data if new.get(path) == data else rename.loose(path, data)
        sides[0][path] = own_name_undone(copied, *names)
    return sides


def changed_lines(
    old: Mapping[str, bytes], new: Mapping[str, bytes], names: tuple[str, str]
) -> Counts:
    """Lines added and deleted over all files; bytes between line feeds count as lines everywhere.

    A renamed file is compared with what it was.

    Args:
        old, new: contents by path within each tree.
        names: the directories of both from the workspace's root, or "".
    """
    total = Counts(0, 0)
    before, after = own_names_aside(old, new, names)
    for old_path, path in pairs(before, after, Budget(MAX_STEPS)):
        a, b = before.get(old_path or "", b""), after.get(path or "", b"")
        if a != b:
            total += count(split(a), split(b), Budget(MAX_STEPS))
    return total
