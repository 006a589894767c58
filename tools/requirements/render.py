"""The results as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tools.requirements.changes import LockChange, Moved, Pair, Refiled
from tools.requirements.commands import Outcome
from tools.requirements.records import Concerned

SHOWN = 8
"""Names in a row before the rest is a number."""


def outcome(done: Outcome) -> str:
    """What a command did."""
    lines = [f"{path}: written" for path in done.written]
    lines += ["", *(line for each in done.changes for line in lock(each))]
    lines += records(done.concerned)
    if done.notes:
        lines += ["", *done.notes]
    return printable(lines)


def differences(changes: Iterable[LockChange], found: Concerned | None = None) -> str:
    """What a comparison of locks found."""
    lines = [line for each in changes for line in lock(each)]
    return printable([*(lines or ["no lock differs"]), *(records(found) if found else ())])


def printable(lines: Iterable[str]) -> str:
    """Text whose lines control no terminal, whatever the records and locks hold."""
    shown = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    return "\n".join(shown).strip("\n") + "\n"


def lock(change: LockChange) -> Iterator[str]:
    """The lines that say what changed in one lock."""
    if change.same:
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
    if others := [each for each in change.refiled if not each.altered]:
        yield f"  other files at the same version: {_some([each.name for each in others])}"
    if change.hosts:
        yield f"  ! files come from elsewhere: {_pair(change.hosts)}"


def _moved(moved: Moved) -> str:
    versions = " -> ".join(version for version in (moved.old, moved.new) if version)
    return f"  {moved.kind:<11} {moved.name} {versions}"


def _altered(each: Refiled) -> str:
    return (
        f"  ! {each.name} {each.version}: {_some(each.altered)} has another sha256 than before. An "
        "index keeps the files of a release as they are: find out why before you commit this"
    )


def _pair(pair: Pair) -> str:
    old, new = pair
    if old is None or new is None:
        return f"{'+' if old is None else '-'} {new or old}"
    return f"{old} -> {new}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def records(found: Concerned) -> Iterator[str]:
    """Which recorded runs a replaced lock concerns, and how to record them again."""
    if found.groups:
        yield ""
        yield "Runs under the new locks are not counted with these; the commands record them again:"
    for group in found.groups:
        notes = f" ({'; '.join(group.notes)})" if group.notes else ""
        yield f"  {group.name}: {', '.join(group.runs)}{notes}"
        yield from (f"    {command}" for command in group.commands)
    yield from found.unreadable
