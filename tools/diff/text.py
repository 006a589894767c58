"""Splits files into lines, and describes in words the differences that a reader cannot see.

Lines keep their ends, and bytes that are not UTF-8 become surrogates, so that the lines, joined and
encoded, give the file again.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

# Larger files are not compared line by line.
MAX_BYTES = 2 * 2**20
# git searches this many bytes for a NUL byte to decide that a file is binary.
_SNIFFED = 8000

# Characters that a browser does not show, or shows as others: controls, format characters (bidi,
# zero-width), odd spaces, line separators, and surrogates (bytes that are not UTF-8).
_SUSPECT = re.compile("[^\\S \t\n\r]|[\x00-\x08\x0e-\x1f\x7f-\x9f\xad]|[^\x00-\u02ff]|\r(?!\n|\\Z)")
_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Zs", "Co", "Cn")
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Characters that are not shown although they count as letters or marks: fillers and joiners.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"


# Texts that people read and no program.
PROSE = (".md", ".rst")
_FENCE = re.compile(r"[ \t>]*(`{3,}|~{3,})")
_AS_WRITTEN = re.compile(r" {4}|[ \t>]*[|+]|[ >]*\t")  # indented code, or a table


def literal(lines: Iterable[str]) -> Iterator[int]:
    """The lines of a prose text, from 0, whose breaks and blanks its readers see.

    Fences of code, what is indented by four columns, and tables; in lists some more.
    """
    fence = ""
    for number, line in enumerate(lines):
        match = _FENCE.match(line)
        if fence or match or _AS_WRITTEN.match(line):
            yield number
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not line[match.end() :].strip():
            fence = ""


def is_binary(content: bytes) -> bool:
    """Whether there is a NUL byte near the beginning, which is git's test."""
    return b"\0" in content[:_SNIFFED]


def split(content: bytes) -> tuple[str, ...]:
    """Lines with their ends; a line ends at a line feed alone, as git counts."""
    pieces = content.decode("utf-8", "surrogateescape").split("\n")
    lines = [f"{piece}\n" for piece in pieces[:-1]]
    return tuple([*lines, pieces[-1]] if pieces[-1] else lines)


@lru_cache(maxsize=4096)
def hidden(char: str) -> bool:
    """Whether a character cannot be seen, or looks like another."""
    if char in " \t\n":
        return False
    if unicodedata.category(char) in _HIDDEN or char in _BLANK:
        return True
    return 0xFE00 <= ord(char) <= 0xFE0F  # variation selectors


def code(char: str) -> str:
    """A hidden character as a report shows it: U+202E, or \\xff for a byte that is not UTF-8."""
    point = ord(char)
    return f"\\x{point - 0xDC00:02x}" if 0xDC80 <= point <= 0xDCFF else f"U+{point:04X}"


def hidden_in(text: str) -> list[re.Match[str]]:
    """The hidden characters of a text, without carriage returns at the end of a line."""
    return [match for match in _SUSPECT.finditer(text) if hidden(match[0])]


def _decoded(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _endings(text: str) -> str:
    crlf = text.count("\r\n")
    lf = text.count("\n") - crlf
    return "mixed LF and CRLF" if crlf and lf else "CRLF" if crlf else "LF" if lf else "none"


def _listed(counts: Counter[str]) -> str:
    shown = sorted(counts.items(), key=lambda item: ord(item[0]))
    words = [f"{code(char)} ({n} times)" if n > 1 else code(char) for char, n in shown[:6]]
    return ", ".join(words) + (f" and {len(shown) - 6} more kinds" if len(shown) > 6 else "")


def notes(old: bytes, new: bytes) -> tuple[str, ...]:
    """Differences between two texts that their lines do not show at a glance."""
    before, after = _decoded(old), _decoded(new)
    result = []
    endings = _endings(before), _endings(after)
    if endings[0] != endings[1] and "none" not in endings:
        result.append(f"line endings: {endings[0]} before, {endings[1]} now")
    marks = before.startswith("\ufeff"), after.startswith("\ufeff")
    if marks[0] != marks[1]:
        result.append(f"byte order mark {'added' if marks[1] else 'removed'}")
    ends = before.endswith("\n"), after.endswith("\n")
    if before and after and ends[0] != ends[1]:
        result.append(f"newline at the end {'added' if ends[1] else 'removed'}")
    counts = [Counter(match[0] for match in hidden_in(t.lstrip("\ufeff"))) for t in (before, after)]
    invalid = [
        Counter({c: n for c, n in side.items() if "\ud800" <= c <= "\udfff"}) for side in counts
    ]
    bidi = [Counter({c: n for c, n in side.items() if c in _BIDI}) for side in counts]
    for kind, (old_count, new_count) in (
        ("bytes that are not UTF-8", (invalid[0], invalid[1])),
        ("bidi controls (the text is shown in another order than it is read)", (bidi[0], bidi[1])),
        (
            "hidden characters",
            (counts[0] - invalid[0] - bidi[0], counts[1] - invalid[1] - bidi[1]),
        ),
    ):
        if new_count - old_count:
            result.append(f"{kind} added: {_listed(new_count - old_count)}")
        if old_count - new_count:
            result.append(f"{kind} removed: {_listed(old_count - new_count)}")
    if old != new and (only := _only(before, after)):
        result.insert(0, f"differs in {only} only")
    return tuple(result)


def _only(before: str, after: str) -> str:
    """The invisible kind of difference if it is the only one; empty if the text differs."""
    steps = (
        ("line endings", lambda text: text.replace("\r\n", "\n")),
        ("the newline at the end", lambda text: text.removesuffix("\n")),
        ("trailing whitespace", _trimmed),
        ("hidden characters", lambda text: _SUSPECT.sub(_without, text)),
    )
    if all(step(before) != step(after) for _, step in steps):
        for _, step in steps:
            before, after = step(before), step(after)
        return "characters that cannot be seen" if before == after else ""
    return next(name for name, step in steps if step(before) == step(after))


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip(" \t\r\f\v") for line in text.split("\n"))


def _without(match: re.Match[str]) -> str:
    char = match[0]
    return "" if hidden(char) and not "\ud800" <= char <= "\udfff" else char
