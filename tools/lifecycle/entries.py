"""One entry of the ledger written or changed; every other byte of it stays."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.archive.check import LEDGER, MAX_LEDGER
from tools.archive.files import read_text
from tools.archive.ledger import FIELDS, Entry, parse
from tools.diff.sources import File
from tools.lifecycle.errors import LifecycleError
from tools.lifecycle.transaction import Change, read_file

WIDTH = 100


def read(root: Path) -> tuple[str, list[Entry]]:
    """The ledger's text and entries. Raises ArchiveError or LedgerError."""
    text = read_text(root / LEDGER, MAX_LEDGER, name=LEDGER)
    return text, parse(text, LEDGER)


def put(change: Change, root: Path, before: str, after: str) -> None:
    """Has the ledger's text replaced by another."""
    mode = read_file(root / LEDGER).mode
    change.put(LEDGER, File(before.encode(), mode), File(after.encode(), mode))


def find(entries: Sequence[Entry], given: str) -> Entry:
    """The entry of that name or directory, a living one first. Raises LifecycleError."""
    wanted = given.removeprefix("./").rstrip("/")
    found = [entry for entry in entries if wanted in (entry.name, entry.path)]
    found.sort(key=lambda entry: entry.status != "active")
    if not found:
        known = [word for entry in entries for word in (entry.name, entry.path)]
        near = difflib.get_close_matches(wanted, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"add '## NAME' to {LEDGER}"
        raise LifecycleError(f"{given}: is not in the ledger; {remedy}")
    return found[0]


def sentence(given: str, what: str) -> str:
    """What a person says in one line, for a field. Raises LifecycleError."""
    words = given.strip()
    if not words:
        raise LifecycleError(f"the {what} is empty: say in a sentence {FIELDS[what].lower()}")
    if not words.isprintable():
        raise LifecycleError(f"the {what} holds a line break or a control character: one line")
    return words


def added(text: str, name: str, fields: Mapping[str, str]) -> str:
    """The ledger with one more entry, its last."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = ["", f"## {name}", "", *(line for key in fields for line in _written(key, fields[key]))]
    start = text if not text or text.endswith("\n") else text + newline
    return start + "".join(line + newline for line in lines)


def changed(text: str, entry: Entry, fields: Mapping[str, str]) -> str:
    """The ledger with fields of one entry set; new ones stand behind its status."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    edits: dict[int, tuple[int, list[str]]] = {}
    behind: list[str] = []
    for key, value in fields.items():
        if key in entry.lines:
            start = entry.lines[key] - 1
            edits[start] = (_end(lines, start), _written(key, value))
        else:
            behind += _written(key, value)
    start = entry.lines["status"] - 1
    end, status = edits.get(start, (_end(lines, start), _written("status", entry.status)))
    edits[start] = (end, status + behind)
    for start, (end, new) in sorted(edits.items(), reverse=True):
        lines[start:end] = [line + newline for line in new]
    return "".join(lines)


def _end(lines: Sequence[str], start: int) -> int:
    """Behind the last line of the field that starts there."""
    end = start + 1
    while end < len(lines) and lines[end].startswith("  ") and lines[end].strip():
        end += 1
    return end


def _written(key: str, value: str) -> list[str]:
    return textwrap.wrap(
        f"- {key}: {value}",
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
