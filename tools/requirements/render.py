"""Renders the results of the commands as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tools.requirements.changes import LockChange, Moved, Pair, Refiled
from tools.requirements.commands import Outcome
from tools.requirements.records import Concerned

SHOWN = 8
"""Number of names listed; the rest is only counted."""


def outcome(result: Outcome) -> str:
    """The text on what a command did."""
    lines = [f"{path}: written" for path in result.written]
    lines += ["", *(line for change in result.changes for line in lock(change))]
    lines += records(result.concerned)
    if result.notes:
        lines += ["", *result.notes]
    return printable(lines)


def differences(changes: Iterable[LockChange], concerned: Concerned | None = None) -> str:
    """The text of a comparison of locks, with the recorded runs that it concerns."""
    lines = [line for change in changes for line in lock(change)]
    lines = lines or ["no lock differs"]
    if concerned:
        lines += records(concerned)
    return printable(lines)


def printable(lines: Iterable[str]) -> str:
    """The lines as text without control characters, whatever records and locks hold."""
    shown = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    return "\n".join(shown).strip("\n") + "\n"


def lock(change: LockChange) -> Iterator[str]:
    """The lines on the changes of one lock."""
    if change.is_unchanged:
        yield f"{change.path}: nothing changed"
        return
    kinds = [moved.kind for moved in change.moved]
    counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    yield f"{change.path}: {', '.join(counts) or 'no version changed'}; {change.size} packages"
    yield from (f"  asked for   {_pair(pair)}" for pair in change.asked)
    if change.interpreters:
        yield f"  Python      {_pair(change.interpreters)}"
    yield from map(_moved, change.moved)
    yield from map(_altered, change.altered)
    if refiled := [entry for entry in change.refiled if not entry.altered]:
        yield f"  other files at the same version: {_some([entry.name for entry in refiled])}"
    if change.hosts:
        yield f"  ! files come from elsewhere: {_pair(change.hosts)}"


def _moved(moved: Moved) -> str:
    versions = " -> ".join(version for version in (moved.old, moved.new) if version)
    return f"  {moved.kind:<11} {moved.name} {versions}"


def _altered(entry: Refiled) -> str:
    return (
        f"  ! {entry.name} {entry.version}: {_some(entry.altered)} has another sha256 than "
        "before. An index keeps the files of a release as they are: find out why before you commit "
        "this"
    )


def _pair(pair: Pair) -> str:
    old, new = pair
    if old is None or new is None:
        return f"{'+' if old is None else '-'} {new or old}"
    return f"{old} -> {new}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def records(concerned: Concerned) -> Iterator[str]:
    """The lines on the recorded runs that a replaced lock concerns, and how to repeat them."""
    if concerned.groups:
        yield ""
        yield "Runs under the new locks are not counted with these; the commands record them again:"
    for group in concerned.groups:
        notes = f" ({'; '.join(group.notes)})" if group.notes else ""
        yield f"  {group.name}: {', '.join(group.runs)}{notes}"
        yield from (f"    {command}" for command in group.commands)
    yield from concerned.unreadable
