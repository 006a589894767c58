"""The ledger of experiments: docs/reports/variants/NAME.md, plain Markdown that people edit.

An experiment is a file: a heading, its name, and a list of fields, one per line; a line that begins
with two spaces continues the field above it:

    # moe

    - path: experiments/grug/moe
    - origin: base
    - forked at: 0123abcd4567 tree 89ab01234567
    - status: active
    - bucket: MLP/activation
    - purpose: whether sparse experts
      pay at equal active FLOPs


    ### Notes

    Whatever people should know.

`FIELDS` lists the fields. `read_ledger` reads all files as one text (tools/ledger/files.py), in
which entries of the older form stand first: second-level headings of docs/reports/grug-archive.md.
`parse` looks at that text alone; tools/runs/check_ledger.py compares it with git and the
directories.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import require_directory
from tools.ledger import files
from tools.ledger.files import LEDGER, entry_file, is_marker, place

# Each directory in it has an entry. (Speedruns have records and a leaderboard of their own.)
AREA = "experiments/grug"
SCHEMA_VERSION = 1

FIELDS = {
    "path": "Its directory, from the workspace's root.",
    "renamed from": "Its earlier names, oldest first, with commas between.",
    "origin": "The experiment it was copied from; `none` for one written from scratch.",
    "forked at": "Where its origin was copied: `COMMIT tree TREE`, git's ids of the commit and of "
    "the directory's content in it. A squash merge drops the first; the second is found again.",
    "introduced": "The first commit of the main branch that has it, written as `forked at` is; "
    "`pending` until there is one.",
    "last known-good": "For a superseded or deleted one: the last commit that has it, written as "
    "`forked at` is.",
    "synced": "What of its origin was looked at: `COMMIT tree TREE`, up to where all of it was; "
    "then `; COMMIT applied` and `; COMMIT declined: reason`.",
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
_NOTES = re.compile(r"###\s+Notes\s*")
_CONFLICT = re.compile(r"(<{7}|\|{7}|>{7})( .*)?|={7}")
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
    """The text below the heading `### Notes`, unchanged."""

    @property
    def earlier_names(self) -> tuple[str, ...]:
        """Names that it had before; its runs may bear them."""
        return tuple(name.strip() for name in self.renamed_from.split(",") if name.strip())

    @property
    def directories(self) -> tuple[str, ...]:
        """Its directory, and those that it had under earlier names, the latest first."""
        return (self.path, *(f"{AREA}/{name}" for name in reversed(self.earlier_names)))

    def __getattr__(self, name: str) -> str:
        """A field as an attribute, such as `entry.superseded_by`; empty if it is not written."""
        key = {"last_known_good": "last known-good"}.get(name, name.replace("_", " "))
        if key not in FIELDS:
            raise AttributeError(name)
        return self.fields.get(key, "")


def read_ledger(root: Path) -> str:
    """The ledger of the workspace `root`, as one text. Raises ToolError if it cannot be read."""
    require_directory(root)
    return files.compose(root)


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
        places = ((place(text, number, path), message) for number, message in faults)
        raise ToolError("\n".join(f"{file}:{line}: {fault}" for (file, line), fault in places))
    return entries


def read(text: str) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The entries as far as they can be read, and every fault as (line, message), by line."""
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        reader.take(number, line)
    faults = reader.faults
    texts = ("\n".join(lines).strip() for lines in reader.notes)
    entries = [dataclasses.replace(e, notes=n) for e, n in zip(reader.entries, texts, strict=True)]
    for entry in entries:
        faults += _faults(entry)
    faults += _between(entries)
    return entries, sorted(faults)


class _Reader:
    """Reads the ledger's text line by line."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.notes: list[list[str]] = []  # of each entry
        self.faults: list[tuple[int, str]] = []
        self.current: Entry | None = None
        self.in_notes = False
        self.file = ""  # marker of the file whose lines these are, if not of the first page
        self.key = ""  # the field that an indented line continues
        self.unknown = 0  # the last line that was neither

    def take(self, number: int, line: str) -> None:
        """Reads the next line."""
        if _CONFLICT.fullmatch(line):
            self.faults.append((number, f"{line[:7]} is left of a merge: resolve the conflict"))
        elif is_marker(line):
            self.current, self.file, self.in_notes = None, line, False
        elif heading := _HEADING.fullmatch(line):
            self._begin(heading[1], number)
        elif self.current and self.in_notes:
            self.notes[-1].append(line)
        elif self.current and _NOTES.fullmatch(line):
            self.in_notes = True
        elif not line.strip():
            self.key = ""
        elif self.current or self.file:
            self._field(self.current, number, line)

    def _begin(self, name: str, number: int) -> None:
        """Begins an entry."""
        self.current, self.key, self.in_notes = Entry(name, number), "", False
        self.entries.append(self.current)
        self.notes.append([])
        if self.file and self.file != entry_file(name, marker=True):
            self.faults.append((number, f"the file of this entry is {entry_file(name)}"))

    def _field(self, entry: Entry | None, number: int, line: str) -> None:
        """Reads a line that is a field, or continues one."""
        item = _FIELD.fullmatch(line)
        if entry and item:
            self.key = item[1]
            if self.key not in FIELDS:
                self.faults.append((number, _unknown("field", self.key, FIELDS)))
            elif self.key in entry.fields:
                above = number - entry.lines[self.key]
                message = f"{self.key!r} is written twice: {above} lines above, too"
                self.faults.append((number, message))
            else:
                entry.fields[self.key], entry.lines[self.key] = item[2] or "", number
        elif entry and self.key and line.startswith("  "):
            if self.key in entry.fields:
                entry.fields[self.key] = f"{entry.fields[self.key]} {line.strip()}".strip()
        else:
            self.key = ""
            if self.unknown != number - 1:  # a paragraph is one fault
                self.faults.append((number, _unknown_line(entry)))
            self.unknown = number


def _unknown_line(entry: Entry | None) -> str:
    if entry is None:
        return "an entry's file begins with '# ' and its name"
    return "is no field, and continues none: notes stand under a heading, '### Notes'"


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
            faults.append((entry.line, f"{entry.name!r} is recorded twice: remove one"))
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
