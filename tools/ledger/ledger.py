"""The ledger of experiments: docs/reports/grug-archive.md, plain Markdown that people edit.

An experiment is a second-level heading, its name, and a list of fields, one per line; a line that
begins with two spaces continues the field above it:

    ## moe

    - path: experiments/grug/moe
    - origin: base
    - forked at: 0123abcd4567 tree 89ab01234567
    - status: active
    - bucket: MLP/activation
    - purpose: whether sparse experts
      pay at equal active FLOPs

Text between the list and the next heading is notes for people. `FIELDS` lists the fields. `parse`
looks at the text alone; tools/runs/check_ledger.py compares it with git and the directories.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text

LEDGER = "docs/reports/grug-archive.md"
# Each directory in it has an entry. (Speedruns have records and a leaderboard of their own.)
AREA = "experiments/grug"
MAX_LEDGER = 4 * MIB
SCHEMA_VERSION = 1

FIELDS = {
    "path": "Its directory, from the workspace's root.",
    "origin": "The experiment it was copied from; `none` for one written from scratch.",
    "forked at": "Where its origin was copied: `COMMIT tree TREE`, git's ids of the commit and of the "
    "directory's content in it. A squash merge drops the first; the second is found again.",
    "introduced": "The first commit of the main branch that has it, written as `forked at` is; "
    "`pending` until there is one.",
    "last known-good": "For a superseded or deleted one: the last commit that has it, written as "
    "`forked at` is.",
    "status": "active, superseded or deleted.",
    "purpose": "The question it answers, in one sentence.",
    "bucket": "The one part of the template it changes.",
    "verdict": "What was learned; `pending` until it is known.",
    "superseded by": "The experiment or commit that took its place.",
    "diff": "Where to see what it changes.",
    "issue": "Where it is discussed.",
    "results": "What was measured.",
}
REQUIRED = ("path", "origin", "status", "purpose", "bucket", "verdict")
STATUSES = ("active", "superseded", "deleted")
CHANGE_BUCKETS = (
    "attention/masking",
    "block wiring/norm ordering",
    "MLP/activation",
    "loss kernel",
    "optimizer/training loop",
    "launch/config",
)
BUCKETS = (*CHANGE_BUCKETS, "template")

_HEADING = re.compile(r"##\s+(\S.*?)\s*")
_FIELD = re.compile(r"- ([a-z][a-z -]*):(?:\s+(\S.*?))?\s*")
# Names and paths become file names and links.
NAME = re.compile(r"[a-z0-9][\w-]{0,79}", re.ASCII)
_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One experiment: the line of its heading, and by the names in FIELDS its fields and lines."""

    name: str
    line: int
    fields: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    notes: str = ""
    """The text below the list, unchanged."""

    def __getattr__(self, name: str) -> str:
        """A field as an attribute, such as `entry.superseded_by`; empty if it is not written."""
        key = {"last_known_good": "last known-good"}.get(name, name.replace("_", " "))
        if key not in FIELDS:
            raise AttributeError(name)
        return self.fields.get(key, "")


def read_ledger(root: Path) -> str:
    """The text of the ledger of the workspace `root`. Raises ToolError if it cannot be read."""
    return read_text(root / LEDGER, MAX_LEDGER, name=LEDGER)


def load_ledger(root: Path) -> list[Entry]:
    """The entries of the ledger of the workspace `root`. Raises ToolError for a bad ledger."""
    return parse(read_ledger(root), LEDGER)


def parse(text: str, path: str) -> list[Entry]:
    """The entries in the order in which they are written.

    Raises:
        ToolError: the text has faults; the message has a line `path:line: message` for each.
    """
    entries, faults = read(text)
    if faults:
        raise ToolError("\n".join(f"{path}:{number}: {message}" for number, message in faults))
    return entries


def read(text: str) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The entries as far as they can be read, and every fault as (line, message), by line."""
    entries: list[Entry] = []
    notes: list[list[str]] = []
    faults: list[tuple[int, str]] = []
    current: Entry | None = None
    key = ""  # the field that an indented line continues
    for number, line in enumerate(text.splitlines(), start=1):
        heading, item = _HEADING.fullmatch(line), _FIELD.fullmatch(line)
        if heading:
            current, key = Entry(heading[1], number), ""
            entries.append(current)
            notes.append([])
        elif current and item:
            key = item[1]
            if key not in FIELDS:
                faults.append((number, _unknown("field", key, FIELDS)))
            elif key in current.fields:
                first = current.lines[key]
                faults.append((number, f"{key!r} is written twice; the first is in line {first}"))
            else:
                current.fields[key], current.lines[key] = item[2] or "", number
        elif current and key in current.fields and line.startswith("  ") and line.strip():
            current.fields[key] = f"{current.fields[key]} {line.strip()}".strip()
        elif current and (line.strip() or notes[-1]):
            key = ""
            notes[-1].append(line)
    texts = ("\n".join(lines).strip() for lines in notes)
    entries = [dataclasses.replace(e, notes=n) for e, n in zip(entries, texts, strict=True)]
    for entry in entries:
        faults += _faults(entry)
    faults += _between(entries)
    return entries, sorted(faults)


def _unknown(kind: str, value: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(value, list(choices), n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices)}"
    return f"unknown {kind} {value!r}; {remedy}"


def _faults(entry: Entry) -> list[tuple[int, str]]:
    """Faults of one entry by itself."""
    faults: list[tuple[int, str]] = []
    if not NAME.fullmatch(entry.name):
        faults.append((entry.line, f"{entry.name!r} is no name: letters, digits, '_' and '-'"))
    if entry.path and not _PATH.fullmatch(entry.path):
        message = f"{entry.path!r} is no path from the workspace's root, such as experiments/grug/x"
        faults.append((entry.lines["path"], message))
    for name in REQUIRED:
        if not entry.fields.get(name):
            faults.append((entry.line, f"{entry.name} lacks '- {name}: ...' ({FIELDS[name]})"))
    for name, choices in (("status", STATUSES), ("bucket", BUCKETS)):
        value = entry.fields.get(name)
        if value and value not in choices:
            faults.append((entry.lines[name], _unknown(name, value, choices)))
    if entry.status == "superseded" and not entry.superseded_by:
        faults.append((entry.line, f"{entry.name} is superseded: say '- superseded by: ...'"))
    if entry.status in ("superseded", "deleted") and not entry.last_known_good:
        faults.append((entry.line, f"{entry.name} is {entry.status}: say '- last known-good: ...'"))
    if entry.status == "active" and entry.last_known_good:
        line = entry.lines["last known-good"]
        faults.append((line, f"{entry.name} is active, so it has no last known-good commit"))
    return faults


def _between(entries: list[Entry]) -> list[tuple[int, str]]:
    """Faults between entries: equal names or paths, and origins that are unknown or circular."""
    faults: list[tuple[int, str]] = []
    by_name: dict[str, Entry] = {}
    by_path: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in by_name:
            first = by_name[entry.name].line
            faults.append((entry.line, f"{entry.name!r} is recorded twice; first in line {first}"))
        elif entry.path in by_path and "active" == entry.status == by_path[entry.path].status:
            name = by_path[entry.path].name
            faults.append((entry.lines["path"], f"{entry.path} is the path of {name} also"))
        by_name.setdefault(entry.name, entry)
        by_path.setdefault(entry.path, entry)
    for entry in entries:
        if entry.origin in ("", "none"):
            continue
        if entry.origin not in by_name:
            faults.append((entry.lines["origin"], _unknown("origin", entry.origin, by_name)))
            continue
        chain = [entry.name]
        while chain[-1] in by_name and (origin := by_name[chain[-1]].origin) not in ("", "none"):
            chain.append(origin)
            if origin == entry.name:
                circle = " <- ".join(chain)
                faults.append((entry.lines["origin"], f"origins go in a circle: {circle}"))
            if origin in chain[:-1]:
                break
    return faults
