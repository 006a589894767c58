"""The ledger as the commands of the recipe read and put it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.transaction import Change, read_file
from tools.ledger.ledger import FIELDS, LEDGER, Entry, parse, read_ledger


def read(root: Path) -> tuple[str, list[Entry]]:
    """The ledger's text and entries. Raises ToolError."""
    text = read_ledger(root)
    return text, parse(text, LEDGER)


def put(change: Change, root: Path, before: str, after: str) -> None:
    """Has the ledger's text replaced by another."""
    mode = read_file(root / LEDGER).mode
    change.put(LEDGER, File(before.encode(), mode), File(after.encode(), mode))


def find(entries: Sequence[Entry], given: str) -> Entry:
    """The entry of that name or directory, a living one first. Raises ToolError."""
    wanted = given.removeprefix("./").rstrip("/")
    found = [entry for entry in entries if wanted in (entry.name, entry.path)]
    found.sort(key=lambda entry: entry.status != "active")
    if not found:
        known = [word for entry in entries for word in (entry.name, entry.path)]
        near = difflib.get_close_matches(wanted, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"add '## NAME' to {LEDGER}"
        raise ToolError(f"{given}: is not in the ledger; {remedy}")
    return found[0]


def sentence(given: str, what: str) -> str:
    """What a person says in one line, for a field. Raises ToolError."""
    words = given.strip()
    if not words:
        raise ToolError(f"the {what} is empty: say in a sentence {FIELDS[what].lower()}")
    if not words.isprintable():
        raise ToolError(f"the {what} holds a line break or a control character: one line")
    return words
