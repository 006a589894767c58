"""Syntax colours of a file, by line, cached by the digest of its content.

Pygments' lexers are loaded only for files that the cache lacks. A cache directory is untrusted: a
malformed entry is ignored and written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Larger files, and files with longer lines, stay plain: a lexer's time may grow faster than its
# input.
MAX_CHARACTERS = 512 * 1024
MAX_LINE = 2000
_SCHEMA = 1

_LEXERS = {
    ".py": "python",
    ".md": "markdown",
    ".json": "json",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".sh": "bash",
    ".css": "css",
    ".html": "html",
    ".js": "javascript",
}
_NAMES = {"BUILD": "python"}

# Pygments' kinds of tokens with their classes in the style sheet; the first match counts.
_CLASSES = (
    ("Comment", "c"),
    ("Literal.String", "s"),
    ("Literal.Number", "m"),
    ("Keyword", "k"),
    ("Operator.Word", "k"),
    ("Name.Function", "f"),
    ("Name.Class", "f"),
    ("Name.Decorator", "f"),
    ("Name.Builtin", "m"),
    ("Name.Tag", "k"),
    ("Name.Attribute", "f"),
    ("Generic.Heading", "f"),
    ("Generic.Subheading", "f"),
)
CLASSES = frozenset(name for _, name in _CLASSES)

Paint = tuple[int, int, str]  # first column, column after the last, class


def highlight(
    path: str, lines: Sequence[str], cache: Path | None = None
) -> list[tuple[Paint, ...]]:
    """The coloured parts of each line of the file `path`; `cache` is a directory."""
    name = path.rpartition("/")[2]
    lexer = _NAMES.get(name) or _LEXERS.get(name[name.rfind(".") :])
    size = sum(map(len, lines))
    if not lexer or size > MAX_CHARACTERS or any(len(line) > MAX_LINE for line in lines):
        return [()] * len(lines)
    text = "".join(lines)
    if cache is None:
        return _paint(lexer, text, len(lines))
    import pygments

    words = f"{_SCHEMA} {pygments.__version__} {lexer}\0{text}"
    key = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()
    entry = cache / f"{key}.json"
    paints = _read(entry, lines)
    if paints is None:
        paints = _paint(lexer, text, len(lines))
        _write(entry, paints)
    return paints


def _paint(lexer: str, text: str, count: int) -> list[tuple[Paint, ...]]:
    from pygments.lexers import get_lexer_by_name

    paints: list[list[Paint]] = [[] for _ in range(count + 1)]
    line = column = 0
    for _, kind, value in get_lexer_by_name(lexer).get_tokens_unprocessed(text):
        name = _class(kind)
        for n, piece in enumerate(value.split("\n")):
            if n:
                line, column = line + 1, 0
            end = column + len(piece)
            if name and piece.strip():
                parts = paints[line]
                if parts and parts[-1][1] == column and parts[-1][2] == name:
                    parts[-1] = (parts[-1][0], end, name)
                else:
                    parts.append((column, end, name))
            column = end
    return [tuple(parts) for parts in paints[:count]]


_known_classes: dict[object, str] = {}


def _class(kind: object) -> str:
    if kind not in _known_classes:
        dotted = str(kind).removeprefix("Token.")
        classes = (name for prefix, name in _CLASSES if f"{dotted}.".startswith(f"{prefix}."))
        _known_classes[kind] = next(classes, "")
    return _known_classes[kind]


def _read(entry: Path, lines: Sequence[str]) -> list[tuple[Paint, ...]] | None:
    """The content of a cache entry; None if it is missing or does not fit these lines."""
    try:
        data = json.loads(entry.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, list) or len(data) != len(lines):
        return None
    paints = []
    for flat, line in zip(data, lines, strict=True):
        if not isinstance(flat, list) or len(flat) % 3:
            return None
        position = 0
        parts = []
        for n in range(0, len(flat), 3):
            first, last, name = flat[n : n + 3]
            if type(first) is not int or type(last) is not int or type(name) is not str:
                return None
            if not position <= first < last <= len(line) or name not in CLASSES:
                return None
            parts.append((first, last, name))
            position = last
        paints.append(tuple(parts))
    return paints


def _write(entry: Path, paints: Sequence[tuple[Paint, ...]]) -> None:
    """Writes an entry by a rename, so that no reader sees half of it. Failures are ignored."""
    text = json.dumps(
        [[x for part in parts for x in part] for parts in paints], separators=(",", ":")
    )
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, entry)
    except OSError:
        return
