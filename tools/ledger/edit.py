"""Writes or changes one entry of the ledger's text; every other byte of it stays.

tools/ledger/files.py says how that text and the ledger's files belong together.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from tools.ledger.files import entry_file
from tools.ledger.ledger import Entry

WIDTH = 100


def added(text: str, name: str, fields: Mapping[str, str]) -> str:
    """The ledger's text with one more entry, in a file of its own."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"## {name}", "", *(line for key in fields for line in _written(key, fields[key]))]
    start = text if not text or text.endswith("\n") else text + newline
    marker = entry_file(name, marker=True)
    return f"{start}{marker}\n" + "".join(line + newline for line in lines)


def renamed(text: str, name: str, new: str) -> str:
    """The ledger's text in which an entry has another name, in a file of its own."""
    newline = "\r\n" if "\r\n" in text else "\n"
    start = re.search(rf"^## +{re.escape(name)} *\r?$", text, re.MULTILINE)
    assert start
    following = re.search(r"^(## |<!-- entry: )", text[start.end() :], re.MULTILINE)
    end = start.end() + following.start() if following else len(text)
    own_marker = f"{entry_file(name, marker=True)}\n"
    before = text[: start.start()].removesuffix(own_marker)
    body = text[start.end() : end].strip("\r\n")
    entry = f"{entry_file(new, marker=True)}\n## {new}{newline}{newline}{body}{newline}"
    rest = text[end:]
    gap = "" if not before or before.endswith("\n") else newline
    return f"{before}{gap}{rest}{entry}"


def changed(text: str, entry: Entry, fields: Mapping[str, str], after: str = "status") -> str:
    """The ledger's text with fields of one entry set; new ones come after the field `after`."""
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if lines[entry.line - 1].endswith("\r\n") else "\n"
    edits: dict[int, tuple[int, list[str]]] = {}
    new_fields: list[str] = []
    for key, value in fields.items():
        if key in entry.lines:
            start = entry.lines[key] - 1
            edits[start] = (_end(lines, start), _written(key, value))
        else:
            new_fields += _written(key, value)
    start = entry.lines[after] - 1
    if start not in edits:
        end = _end(lines, start)
        edits[start] = (end, [line.rstrip("\r\n") for line in lines[start:end]])
    edits[start][1].extend(new_fields)
    for start, (end, written) in sorted(edits.items(), reverse=True):
        lines[start:end] = [line + newline for line in written]
    return "".join(lines)


def _end(lines: Sequence[str], start: int) -> int:
    """The index after the last line of the field that starts at line `start`."""
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
