"""Splits files into lines, and describes in words the differences that a reader cannot see.

Lines keep their ends, and bytes that are not UTF-8 become surrogates, so that the lines, joined and
encoded, give the file again.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby

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
PROSE = (".md",)
# A line that any reader of Markdown takes for text of a paragraph: it begins with a letter or a
# number, and ends without a hard break. Not with characters of tables and of mathematics, controls,
# and letters that are written without blanks between words.
_PLAIN = re.compile(
    "(?!\\d+[.)])[\"'(]?[^\\W_]"
    "[^|$\x00-\x1f\x7f-\x9f\u2028-\u202e\u2e80-\U0010ffff]*"
    "(?<!\\\\)(?<! {2})"
)
_FENCE = re.compile(r"(`{3,}|~{3,}) ?[\w+#.-]* *")
# Readers do not agree on where the code ends that any other fence begins, nor HTML.
_UNCERTAIN = re.compile("`{3}|~{3}|<[!?/A-Za-z]")


def literal(lines: Iterable[str]) -> Iterator[int]:
    """The lines of a prose text, from 0, whose breaks and blanks a reader may see.

    That are all but blank lines and whole paragraphs of which each line is plain.
    """
    texts = [line.removesuffix("\n").removesuffix("\r") for line in lines]
    is_plain = _plain(texts)
    for is_blank, run in groupby(range(len(texts)), lambda n: is_plain[n] and not texts[n].strip()):
        paragraph = list(run)
        if not is_blank and not all(is_plain[n] for n in paragraph):
            yield from paragraph


def _plain(texts: Sequence[str]) -> list[bool]:
    """Of each line, whether it is blank or a paragraph's, and stands in no other block."""
    if any(text.lstrip().startswith(":") for text in texts):
        return [False] * len(texts)  # what is before it may be a term
    result = [False] * _front_matter(texts)
    fence, is_known = "", True
    for text in texts[len(result) :]:
        inside = bool(fence)
        if fence:
            is_end = text.strip(" \t").strip(fence[0]) == "" and text.strip(" \t") >= fence
            is_known = is_known and (not is_end or text.startswith(fence))
            fence = "" if is_end else fence
        elif opening := _FENCE.fullmatch(text):
            inside, fence = True, opening[1]
        elif _UNCERTAIN.search(text):
            is_known = False
        is_plain = not text.strip(" ") or bool(_PLAIN.fullmatch(text))
        result.append(is_known and not inside and is_plain)
    return result


def _front_matter(texts: Sequence[str]) -> int:
    """The number of lines at the beginning that may be data about the text."""
    first = texts[0].lstrip("\ufeff") if texts else ""
    if first.startswith(("---", "+++")):
        ends = (n + 1 for n, text in enumerate(texts) if n and text.rstrip() == first.rstrip())
        return next(ends, len(texts))
    if re.match(r"[\w -]+:", first):
        return next((n for n, text in enumerate(texts) if not text.strip()), len(texts))
    return 0


def paragraphs(lines: Sequence[str], first: int, last: int) -> tuple[bool, str, bool]:
    """The paragraphs of lines [first, last] of a prose text, whatever their width.

    With whether they begin and end as the text's paragraphs do.
    """
    blank = [not line.strip(" \r\n") for line in lines[max(first - 1, 0) : last + 2]]
    joined = (
        line.rstrip(" \r\n") + " " if line.strip(" \r\n") else "\n"
        for line in lines[first : last + 1]
    )
    begins = first == 0 or blank[0]
    return begins, "".join(joined), last + 1 == len(lines) or blank[-1]


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
