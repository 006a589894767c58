"""One entry of the ledger written or changed; every other byte of it stays."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from tools.ledger.ledger import Entry

WIDTH = 100


def added(text: str, name: str, fields: Mapping[str, str]) -> str:
    """The ledger with one more entry, its last."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = ["", f"## {name}", "", *(line for key in fields for line in _written(key, fields[key]))]
    start = text if not text or text.endswith("\n") else text + newline
    return start + "".join(line + newline for line in lines)


def changed(text: str, entry: Entry, fields: Mapping[str, str], behind: str = "status") -> str:
    """The ledger with fields of one entry set; new ones stand behind the one named."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    edits: dict[int, tuple[int, list[str]]] = {}
    more: list[str] = []
    for key, value in fields.items():
        if key in entry.lines:
            start = entry.lines[key] - 1
            edits[start] = (_end(lines, start), _written(key, value))
        else:
            more += _written(key, value)
    start = entry.lines[behind] - 1
    if start not in edits:
        end = _end(lines, start)
        edits[start] = (end, [line.rstrip("\r\n") for line in lines[start:end]])
    edits[start][1].extend(more)
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
