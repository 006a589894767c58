"""Which two trees a diff report compares: the variant's, and the one it is compared with."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from tools.common.errors import ToolError
from tools.ledger import pins
from tools.ledger.ledger import Entry


@dataclass(frozen=True)
class Side:
    """One of the two trees: where it is, its name in the report, and its commit, if known."""

    source: str
    """A directory of the working tree, COMMIT:DIRECTORY, or `COMMIT tree TREE:DIRECTORY`."""
    label: str
    commit: str


@dataclass(frozen=True)
class Sides:
    """Both sides of a report; without a recorded origin `old` is None, and the closest is used."""

    name: str
    new: Side
    old: Side | None
    bucket: str = ""
    """The change bucket that the ledger declares, if `old` is the variant's origin."""


def sides(
    variant: str, against: str, entries: Collection[Entry], directories: Collection[str]
) -> Sides:
    """Both sides of one report: an active variant with its origin as it is now, else as it was.

    Args:
        variant: name or directory of a variant, living or deleted.
        against: another one, or COMMIT:DIRECTORY; empty for the origin that the ledger names.
        entries: the ledger.
        directories: the directories of the variants in the working tree.

    Raises:
        ToolError: there is no such variant, or nothing to compare it with.
    """
    new = _side(variant, entries, directories)
    entry = _entry(variant, entries)
    name = entry.name if entry else variant.rstrip("/").rpartition("/")[2]
    if against:
        return Sides(name, new, _against(against, entries, directories))
    if entry is None or entry.origin in ("", "none"):
        return Sides(name, new, None)
    origin = _entry(entry.origin, entries)
    if origin and entry.status != "active" and entry.forked_at:
        # The variant has ended, and its change may since have been merged into its origin.
        old_source = f"{entry.forked_at}:{origin.path}"
        then = Side(old_source, origin.name, _commit(entry.forked_at))
        return Sides(name, new, then, entry.bucket)
    old = _side(entry.origin, entries, directories)
    old = Side(old.source, old.label, old.commit or _commit(entry.forked_at))
    return Sides(name, new, old, entry.bucket)


def _commit(pinned: str) -> str:
    """The commit, or else the tree, that a field of the ledger names."""
    pin = pins.parse(pinned)
    return pin.label if pin else pinned


def _against(against: str, entries: Collection[Entry], directories: Collection[str]) -> Side:
    commit, colon, path = against.partition(":")
    if not colon:
        return _side(against, entries, directories)
    if not commit or not path or path.startswith(("/", "..")):
        raise ToolError(f"{against}: write COMMIT:DIRECTORY, as in HEAD~1:experiments/grug/base")
    return Side(against, f"{path.rstrip('/').rpartition('/')[2]} at {commit}", commit)


def _entry(variant: str, entries: Collection[Entry]) -> Entry | None:
    name = variant.rstrip("/")
    matches = [entry for entry in entries if name in (entry.name, entry.path)]
    living = [entry for entry in matches if entry.status == "active"]
    return (living or matches or [None])[0]


def _side(variant: str, entries: Collection[Entry], directories: Collection[str]) -> Side:
    name, entry = variant.rstrip("/"), _entry(variant, entries)
    path = entry.path if entry else name
    label = entry.name if entry else name.rpartition("/")[2]
    if path in directories:
        return Side(path, label, "")
    if entry and entry.last_known_good:
        return Side(f"{entry.last_known_good}:{path}", label, _commit(entry.last_known_good))
    names = sorted({e.name for e in entries} | set(directories))
    close = difflib.get_close_matches(name, names, n=3) or names
    raise ToolError(f"{variant}: no such variant; nearest: {', '.join(close)}")
