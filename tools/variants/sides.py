"""Which two trees a diff report of a variant shows: the variant, and what it is held against."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from tools.common.errors import ToolError
from tools.ledger.ledger import Entry


@dataclass(frozen=True)
class Side:
    """One of the two: where it is, what to call it, and the commit it is of, if that is known."""

    source: str  # a directory of the working tree, or COMMIT:DIRECTORY
    label: str
    commit: str


@dataclass(frozen=True)
class Sides:
    """`old` is None where no origin is recorded: the closest variant stands in for it."""

    name: str
    new: Side
    old: Side | None


def sides(
    variant: str, against: str, entries: Collection[Entry], directories: Collection[str]
) -> Sides:
    """Both sides of one report: an active variant against its origin as it is, else as it was.

    Args:
        variant: name or directory of a variant, living or deleted.
        against: another one, or COMMIT:DIRECTORY; empty for the origin that the ledger names.
        entries: the ledger.
        directories: of the variants in the working tree.

    Raises:
        ToolError: there is no such variant, or nothing to hold it against.
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
        # Of one that has ended: its origin may hold by now what it changed.
        then = f"{entry.forked_at}:{origin.path}"
        return Sides(name, new, Side(then, origin.name, entry.forked_at))
    old = _side(entry.origin, entries, directories)
    return Sides(name, new, Side(old.source, old.label, old.commit or entry.forked_at))


def _against(given: str, entries: Collection[Entry], directories: Collection[str]) -> Side:
    commit, colon, path = given.partition(":")
    if not colon:
        return _side(given, entries, directories)
    if not commit or not path or path.startswith(("/", "..")):
        raise ToolError(f"{given}: write COMMIT:DIRECTORY, as in HEAD~1:experiments/grug/base")
    return Side(given, f"{path.rstrip('/').rpartition('/')[2]} at {commit}", commit)


def _entry(variant: str, entries: Collection[Entry]) -> Entry | None:
    wanted = variant.rstrip("/")
    found = [entry for entry in entries if wanted in (entry.name, entry.path)]
    living = [entry for entry in found if entry.status == "active"]
    return (living or found or [None])[0]


def _side(variant: str, entries: Collection[Entry], directories: Collection[str]) -> Side:
    wanted, entry = variant.rstrip("/"), _entry(variant, entries)
    path = entry.path if entry else wanted
    label = entry.name if entry else wanted.rpartition("/")[2]
    if path in directories:
        return Side(path, label, "")
    if entry and entry.last_known_good:
        commit = entry.last_known_good
        return Side(f"{commit}:{path}", label, commit)
    known = sorted({e.name for e in entries} | set(directories))
    near = difflib.get_close_matches(wanted, known, n=3) or known
    raise ToolError(f"{variant}: no such variant; nearest: {', '.join(near)}")
