"""The ledger as the recipe's commands read and change it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.transaction import Change, read_file
from tools.ledger import ledger as language
from tools.ledger.files import entry_file, split
from tools.ledger.ledger import FIELDS, LEDGER, Entry, read_ledger


def read(root: Path) -> tuple[str, list[Entry]]:
    """The ledger's text and entries. Raises ToolError."""
    text = read_ledger(root)
    return text, parse(text)


def parse(text: str) -> list[Entry]:
    """The entries of the ledger's text. Raises ToolError."""
    return language.parse(text, LEDGER)


def put(change: Change, root: Path, before: str, after: str) -> None:
    """Adds to a change that it replaces the ledger's text `before` by `after`.

    Raises:
        ToolError: the ledger is no longer what it was.
    """
    contents = split(after)
    for path, old in split(before).items():
        file = read_file(root / path)
        # The text ends every file with a line end, which the file itself may lack.
        if file.content.decode() not in (old, old.removesuffix("\n")):
            raise ToolError(f"{path}: was changed meanwhile, nothing is done: run it again")
        new = contents.pop(path, None)
        if new == old:
            change.rest_on(path, file)
        else:
            change.put(path, file, None if new is None else File(new.encode(), file.mode))
    for path, new in contents.items():
        change.put(path, None, File(new.encode()))


def find(entries: Sequence[Entry], variant: str) -> Entry:
    """The entry of that name or directory, a living one first. Raises ToolError."""
    name = variant.removeprefix("./").rstrip("/")
    matches = [entry for entry in entries if name in (entry.name, entry.path)]
    matches.sort(key=lambda entry: entry.status != "active")
    if not matches:
        names = [word for entry in entries for word in (entry.name, entry.path)]
        close = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"add {entry_file('NAME')}"
        raise ToolError(f"{variant}: is not in the ledger; {remedy}")
    return matches[0]


def sentence(text: str, field: str) -> str:
    """The stripped text of a field that is one line. Raises ToolError if it is empty or not one."""
    words = text.strip()
    if not words:
        raise ToolError(f"the {field} is empty: say in one sentence {_asked(field)}")
    if not words.isprintable():
        raise ToolError(f"the {field} holds a line break or a control character: one line")
    return words


def verdict(entry: Entry, given: str) -> str:
    """The verdict to write at an experiment's end; empty if the ledger has one, and none is given.

    Raises:
        ToolError: there is none.
    """
    return sentence(given, "verdict") if given or entry.verdict == "pending" else ""


def _asked(field: str) -> str:
    """What a field of one sentence says, as part of a sentence."""
    words = FIELDS[field].removesuffix(".").removesuffix(", in one sentence").partition(";")[0]
    return words[:1].lower() + words[1:]
