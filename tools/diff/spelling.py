"""Python sources as Python reads them, and names that do not read as they look."""

from __future__ import annotations

import codecs
import tokenize
import unicodedata
from collections.abc import Sequence

# Encodings of one byte for each character, in which ASCII is ASCII: lines are the same before and
# after they are decoded. In any other encoding a comment may hold code.
_KNOWN = ("iso8859-", "cp125", "koi8-", "mac-")
# Latin letters, and others that look like them: Cyrillic, Greek and rare Latin ones.
_ALIKE = {
    "A": "\u0410\u0391",
    "B": "\u0412\u0392",
    "C": "\u0421",
    "E": "\u0415\u0395",
    "H": "\u041d\u0397",
    "I": "\u0406\u0399",
    "J": "\u0408",
    "K": "\u041a\u039a",
    "M": "\u041c\u039c",
    "N": "\u039d",
    "O": "\u041e\u039f",
    "P": "\u0420\u03a1",
    "S": "\u0405",
    "T": "\u0422\u03a4",
    "X": "\u0425\u03a7",
    "Y": "\u03a5",
    "Z": "\u0396",
    "a": "\u0430\u03b1\u0251",
    "c": "\u0441",
    "d": "\u0501",
    "e": "\u0435",
    "g": "\u0261",
    "h": "\u04bb",
    "i": "\u0456\u03b9\u0131",
    "j": "\u0458",
    "l": "\u2113",
    "o": "\u043e\u03bf",
    "p": "\u0440\u03c1",
    "q": "\u051b",
    "s": "\u0455",
    "u": "\u03c5",
    "v": "\u03bd",
    "w": "\u051d",
    "x": "\u0445",
    "y": "\u0443",
}
_LATIN = {ord(other): letter for letter, others in _ALIKE.items() for other in others}


def not_python(lines: Sequence[str]) -> str:
    """Why a source is not compared as Python because of its encoding; empty if it is.

    Python refuses it, or it declares an encoding (PEP 263) in which a comment may hold code.
    """
    try:
        declared = _declared(lines)
    except SyntaxError as error:
        return f"not in an encoding that Python reads ({str(error)[:60]})"
    name = codecs.lookup(declared).name
    if name in _AS_UTF8:
        return ""
    if name != "ascii" and not name.startswith(_KNOWN):
        return f"in the encoding {declared[:60]}"
    try:
        _decoded(lines, name)
    except UnicodeError:
        return f"not in the encoding that it declares ({declared})"
    return ""


_AS_UTF8 = ("utf-8", "utf-8-sig")


def _declared(lines: Sequence[str]) -> str:
    """The encoding that Python reads a source in. Raises SyntaxError as Python does."""
    first = iter([line.encode("utf-8", "surrogateescape") for line in lines[:2]])
    return tokenize.detect_encoding(lambda: next(first, b""))[0]


def _decoded(lines: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(line.encode("utf-8", "surrogateescape").decode(name) for line in lines)


def as_python(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines as Python decodes them: without a byte order mark, and in the declared encoding.

    Args:
        lines: read as UTF-8, with surrogates for other bytes (text.split). They come back as they
            are if they are not read as Python (not_python).
    """
    if not_python(lines):
        return tuple(lines)
    if lines and lines[0].startswith("\ufeff"):
        return (lines[0][1:], *lines[1:])
    name = codecs.lookup(_declared(lines)).name
    return tuple(lines) if name in _AS_UTF8 else _decoded(lines, name)


def look_alike(name: str) -> str:
    """The ASCII name that a name looks like; empty if it looks like none."""
    plain = unicodedata.normalize("NFKC", name).translate(_LATIN)
    return plain if plain.isascii() and plain != name else ""


def foreign(names: set[str]) -> str:
    """A note on names that look like others: each with the characters that differ."""
    said = []
    for name in sorted(names):
        plain = look_alike(name)
        codes = dict.fromkeys(f"U+{ord(c):04X}" for c in name if not c.isascii())
        if plain or len({_script(c) for c in name if c.isalpha()}) > 1:
            looks = f" looks like {plain}" if plain else " mixes scripts"
            said.append(f"{name} ({', '.join(codes)}){looks}")
    more = f" and {len(said) - _LISTED} more" if len(said) > _LISTED else ""
    return "; ".join(said[:_LISTED]) + more


_LISTED = 6


def _script(char: str) -> str:
    """The script of a letter: the first word of its name."""
    return unicodedata.name(char, "").partition(" ")[0]
