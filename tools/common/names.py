"""Writes a copy's own name in place of its origin's.

A reference is rewritten where the syntax says that it is one: in import statements, in names such
as `experiments.grug.base.model`, and in string constants. These include docstrings, since a command
or path in a docstring must hold for the copy. Comments stay, and so do files that are neither
Python nor BUILD files. Edits are made by position, so that formatting, line ends and encoding are
kept. The template never names itself: its imports are relative.
"""

from __future__ import annotations

import ast
import bisect
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tools.common.errors import ToolError

_FROM_ABOVE = re.compile(rb"from[\s\\]*\.[\s\\]*\.")
_NEWLINE = re.compile(r"\r\n|\r|\n")
Edit = tuple[int, int, str]
"""Start, end and new text, in characters."""


def is_python(path: str) -> bool:
    """Whether a path is Python: a module or a BUILD file."""
    name = PurePosixPath(path).name
    return name.endswith(".py") or name == "BUILD" or name.startswith("BUILD.")


@dataclass(frozen=True)
class Rename:
    """A rename of one directory to another, both from the workspace's root."""

    old: str
    new: str

    def undone(self) -> Rename:
        """The rename back."""
        return Rename(self.new, self.old)

    def strict(self, path: str, data: bytes) -> bytes:
        """A file's bytes under the new name.

        Args:
            path: the file's path within the directory.
            data: its content.

        Raises:
            ToolError: it is named like Python, but cannot be parsed.
        """
        return self.elsewhere(f"{self.old}/{path}", data)

    def elsewhere(self, place: str, data: bytes) -> bytes:
        """As `strict`, for any file of the workspace; `place` is its path from the root."""
        if not is_python(place) or not self._may_concern(data):
            return data
        try:
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
            source = Source(place, data.decode(encoding))
            return source.edited(source.renaming(self)).encode(encoding)
        except (SyntaxError, UnicodeError, ValueError, tokenize.TokenError) as error:
            raise ToolError(f"{place}: cannot be read as Python: {error}") from error

    def loose(self, path: str, data: bytes) -> bytes:
        """As `strict`, but a file that cannot be parsed (work in progress, say) stays as it is."""
        try:
            return self.strict(path, data)
        except (ToolError, RecursionError, MemoryError):
            return data

    def restored(self, path: str, data: bytes, origins: Iterable[bytes]) -> bytes:
        """A renamed file's bytes under the old name.

        They are the first of `origins` whose renaming is `data`, since a text may have held the new
        name before. If there is none, `data` is renamed back.
        """
        for origin in origins:
            if origin == data or self.loose(path, origin) == data:
                return origin
        return self.undone().loose(path, data)

    def _may_concern(self, data: bytes) -> bool:
        """Whether a reference is possible, so that a file without any need not be parsed."""
        directory = PurePosixPath(self.old)
        named = re.search(rb"\b" + re.escape(directory.name.encode()) + rb"\b", data)
        above = directory.parts[0].encode() in data or _FROM_ABOVE.search(data)
        return bool(named and above)


@dataclass(frozen=True)
class Reference:
    """A place where a text names a directory, from `start` up to `end`; `words` is its text."""

    start: int
    end: int
    words: str


def mentions(text: str, directory: str) -> Iterator[Reference]:
    """Places where a text names a directory by path or as a module.

    `experiments/grug/base2`, `docs/experiments/grug/base`, `experiments/grug/base.md` and
    `my.experiments.grug.base` do not name `experiments/grug/base`.
    """
    path, dotted = re.escape(directory), re.escape(directory.replace("/", "."))
    by_path = rf"(?<![\w-])(?<![\w-]/){path}(?![\w-]|\.\w)"
    for match in re.finditer(rf"{by_path}|(?<![\w.-]){dotted}(?![\w-])", text):
        yield Reference(match.start(), match.end(), match[0])


class Source:
    """A Python or BUILD file, its tokens and its syntax tree."""

    def __init__(self, path: str, text: str) -> None:
        """Raises SyntaxError, ValueError or TokenError for what cannot be parsed."""
        self.path, self.text = path, text
        self.starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]
        self.tree = ast.parse(text)
        lines = io.StringIO(text, newline="")
        self.tokens = list(tokenize.generate_tokens(lines.readline))

    def at(self, position: tuple[int, int]) -> int:
        """The offset of a token's (line, column)."""
        return self.starts[position[0] - 1] + position[1]

    def span(self, node: ast.stmt | ast.alias) -> tuple[int, int]:
        """Start and end of a node, whose columns count UTF-8 bytes."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno, node.end_col_offset),
        )

    def _offset(self, line: int, column: int) -> int:
        start = self.starts[line - 1]
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return start + len(self.text[start:end].encode()[:column].decode())

    def line(self, offset: int) -> int:
        """The line, from 1, of an offset."""
        return bisect.bisect_right(self.starts, offset)

    def edited(self, edits: list[Edit]) -> str:
        """The text with (start, end, new) edits made."""
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return text

    # -- references ----------------------------------------------------------------------------

    def references(self, directory: str) -> Iterator[Reference]:
        """References in string constants and in dotted names, but not in relative imports."""
        for start, end in self.strings():
            for mention in mentions(self.text[start:end], directory):
                yield Reference(start + mention.start, start + mention.end, mention.words)
        parts = directory.split("/")
        words = ".".join(parts).replace(".", " . ").split()
        names = [t for t in self.tokens if t.type in (tokenize.NAME, tokenize.OP)]
        for i in range(len(names) - len(words) + 1):
            window = names[i : i + len(words)]
            after_a_dot = i > 0 and names[i - 1].string in (".", "...")
            if not after_a_dot and [token.string for token in window] == words:
                start, end = self.at(window[0].start), self.at(window[-1].end)
                yield Reference(start, end, ".".join(parts))

    def strings(self) -> Iterator[tuple[int, int]]:
        """(start, end) of string literals; an f-string, though several tokens, is one."""
        depth = start = 0
        for token in self.tokens:
            kind = tokenize.tok_name[token.type]
            if kind in ("FSTRING_START", "TSTRING_START"):
                start = start if depth else self.at(token.start)
                depth += 1
            elif kind in ("FSTRING_END", "TSTRING_END"):
                depth -= 1
                if not depth:
                    yield start, self.at(token.end)
            elif kind == "STRING" and not depth:
                yield self.at(token.start), self.at(token.end)

    def imports(self) -> list[ast.ImportFrom]:
        """All `from ... import` statements."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)]

    # -- edits ---------------------------------------------------------------------------------

    def renaming(self, rename: Rename) -> list[Edit]:
        """The edits that rename every reference to a variant's directory."""
        edits = {}
        old, new = PurePosixPath(rename.old), PurePosixPath(rename.new)
        beside = old.parent == new.parent
        for reference in self.references(rename.old):
            end = reference.end
            # Only the name itself, so that the words before it keep their layout.
            start, words = end - len(old.name), new.name
            if not beside:
                separator = "/" if "/" in reference.words else "."
                start, words = reference.start, rename.new.replace("/", separator)
            edits[start] = (start, end, words)
        if beside:
            for node in self.imports():
                for edit in self._from_above(node, old, new.name):
                    edits[edit[0]] = edit
        return list(edits.values())

    def _from_above(self, node: ast.ImportFrom, old: PurePosixPath, new: str) -> Iterator[Edit]:
        """Edits of `from experiments.grug import base` and of its relative spellings."""
        package = PurePosixPath(self.path).parent.parts
        above = package[: max(0, len(package) - node.level + 1)] if node.level else ()
        module = above + tuple(node.module.split(".") if node.module else ())
        if module == old.parent.parts:
            for alias in node.names:
                if alias.name == old.name:
                    bound_name = alias.asname or alias.name
                    words = new if bound_name == new else f"{new} as {bound_name}"
                    yield (*self.span(alias), words)
        elif node.level and len(above) < len(old.parts) and module[: len(old.parts)] == old.parts:
            start, end = self.span(node)
            names = [
                token
                for token in self.tokens
                if token.type == tokenize.NAME and start < self.at(token.start) < end
            ]
            token = names[len(old.parts) - len(above) - 1]
            yield self.at(token.start), self.at(token.end), new
