"""The ledger's files: one per experiment, so that git merges two people's entries.

They are read as one text, in which a marker precedes what is each file's own, and a change of that
text is written back to the files it concerns. Entries may also stand in the ledger's first page, as
they did before each had a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text

LEDGER = "docs/reports/grug-archive.md"
"""The ledger's first page: what it is, for people."""
FOLDER = "variants"
"""The directory beside it that holds the entries' files."""
ENTRIES = f"docs/reports/{FOLDER}"
MAX_LEDGER = 4 * MIB

_MARKER = re.compile(r"<!-- entry: (\S+) -->")


def is_marker(line: str) -> bool:
    """Whether a line of the ledger's text says which file follows."""
    return bool(_MARKER.fullmatch(line))


def _marker(path: str) -> str:
    return f"<!-- entry: {path} -->"


def entry_file(name: str, *, marker: bool = False) -> str:
    """The file of an experiment's entry, or the marker of that file in the ledger's text."""
    path = f"{ENTRIES}/{name}.md"
    return _marker(path) if marker else path


def compose(root: Path, ledger: str = LEDGER) -> str:
    """The ledger as one text: its first page, then the entries' files by name.

    Args:
        root: the workspace.
        ledger: the first page, from the workspace's root.

    Raises:
        ToolError: a file cannot be read.
    """
    # The folder as it is named in a workspace, wherever this one's copy of the ledger lies.
    folder = sorted((root / ledger).parent.glob(f"{FOLDER}/*.md"))
    names = {path: entry_file(path.stem) for path in folder}
    return join(
        _read(root / ledger, ledger), {name: _read(path, name) for path, name in names.items()}
    )


def join(first: str, entries: Mapping[str, str]) -> str:
    """The ledger as one text, from its first page and the entries' files by their paths."""
    texts = [first]
    for name, text in entries.items():
        texts += [f"{_marker(name)}\n", f"#{text}" if text.startswith("#") else text]
    return "".join(text if not text or text.endswith("\n") else f"{text}\n" for text in texts)


def _read(path: Path, name: str) -> str:
    text = read_text(path, MAX_LEDGER, name=name)
    for number, line in enumerate(text.splitlines(), start=1):
        if is_marker(line):
            raise ToolError(f"{name}:{number}: this comment has a meaning of its own: remove it")
    return text


def split(text: str) -> dict[str, str]:
    """The content of each of the ledger's files, by its path from the workspace's root."""
    contents: dict[str, list[str]] = {LEDGER: []}
    lines = contents[LEDGER]
    for line in text.splitlines(keepends=True):
        if match := _MARKER.fullmatch(line.rstrip("\r\n")):
            lines = contents[match[1]] = []
        else:
            first = not lines and lines is not contents[LEDGER]
            lines.append(line[1:] if first and line.startswith("##") else line)
    return {path: "".join(parts) for path, parts in contents.items()}


def changes(before: str, after: str) -> Iterator[tuple[str, str | None, str | None]]:
    """(path, old content, new content) of each file in which two texts differ, None for no file."""
    old, new = split(before), split(after)
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            yield path, old.get(path), new.get(path)


def place(text: str, line: int, ledger: str = LEDGER) -> tuple[str, int]:
    """The file and the line in it of a line of the ledger's text; both count from 1."""
    lines = text.splitlines()[:line]
    for number in range(len(lines) - 1, -1, -1):
        if match := _MARKER.fullmatch(lines[number]):
            return match[1], max(1, line - number - 1)
    return ledger, line


def file_of(text: str, line: int) -> str:
    """The file that holds a line of the ledger's text, such as the heading of an entry."""
    return place(text, line)[0]
