"""Counts the lines in which two trees differ, ignoring a copy's own name and renamed files."""

from __future__ import annotations

from collections.abc import Mapping

from tools.common.names import Rename, mentions
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


def own_name_undone(content: bytes, old: str, new: str) -> bytes:
    """A file of the variant `new` with its origin's name in place of its own.

    `experiments.grug.moe` becomes `experiments.grug.base`, and so with slashes;
    `experiments.grug.moe2` and `experiments/grug/moe-2` are other names and stay.

    Args:
        old, new: the directories of origin and variant from the workspace's root, or "".
    """
    if not has_own_name(old, new) or new.rpartition("/")[2].encode() not in content:
        return content
    text = content.decode("utf-8", "surrogateescape")
    pieces, position = [], 0
    for mention in sorted(mentions(text, new), key=lambda found: found.start):
        name = old if "/" in mention.words else old.replace("/", ".")
        pieces += [text[position : mention.start], name]
        position = mention.end
    return "".join([*pieces, text[position:]]).encode("utf-8", "surrogateescape")


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
    if not has_own_name(source, directory):
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

    A renamed file is compared with what it was. A file that came or went without a line, and one
    with another name alone, counts as one line: only an untouched copy is 0 lines away.

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
        elif old_path != path:
            total += Counts(int(path is not None), int(old_path is not None))
    return total
