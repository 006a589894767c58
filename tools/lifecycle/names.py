"""A copy's own name, written in the place of its origin's.

A reference is rewritten where the syntax says that it is one: in import statements, in names such
as `experiments.grug.base.model`, and in string constants, docstrings among them, since a command or
path in a docstring has to be true of the copy. Comments stay, and so does all that is no Python or
BUILD file. Edits are made by position in the text as it stands: formatting, line ends and encoding
are kept. The template itself names itself nowhere: its imports are relative.
"""

from __future__ import annotations

import ast
import bisect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tools.common.errors import ToolError

_NEWLINE = re.compile(r"\r\n|\r|\n")
Edit = tuple[int, int, str]
"""Start, end and new text, in characters."""


def is_python(path: str) -> bool:
    """Whether a path is Python: a module or a BUILD file."""
    name = PurePosixPath(path).name
    return name.endswith(".py") or name == "BUILD" or name.startswith("BUILD.")


@dataclass(frozen=True)
class Rename:
    """From one directory's name to another's, both from the workspace's root."""

    old: str
    new: str

    def undone(self) -> Rename:
        """The rename back."""
        return Rename(self.new, self.old)

    def strict(self, path: str, data: bytes) -> bytes:
        """A file's bytes under the new name.

        Args:
            path: of the file, within the directory.
            data: what it holds.

        Raises:
            ToolError: it is meant to be Python, but cannot be read as such.
        """
        if not is_python(path) or PurePosixPath(self.old).name.encode() not in data:
            return data
        place = f"{self.old}/{path}"
        try:
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
            source = Source(place, data.decode(encoding))
            return source.edited(source.renaming(self)).encode(encoding)
        except (SyntaxError, UnicodeError, ValueError, tokenize.TokenError) as error:
            raise ToolError(f"{place}: cannot be read as Python: {error}") from error

    def loose(self, path: str, data: bytes) -> bytes:
        """The same, but what cannot be read stays as it is: work in progress, an old commit."""
        try:
            return self.strict(path, data)
        except ToolError:
            return data


@dataclass(frozen=True)
class Reference:
    """Where a text names a directory: `words` is what stands there."""

    start: int
    end: int
    words: str


def mentions(text: str, directory: str) -> Iterator[Reference]:
    """Where a text names a directory by path or as a module.

    `experiments/grug/base2`, `docs/experiments/grug/base`, `experiments/grug/base.md` and
    `my.experiments.grug.base` name others.
    """
    path, dotted = re.escape(directory), re.escape(directory.replace("/", "."))
    by_path = rf"(?<![\w-])(?<![\w-]/){path}(?![\w-]|\.\w)"
    for found in re.finditer(rf"{by_path}|(?<![\w.-]){dotted}(?![\w-])", text):
        yield Reference(found.start(), found.end(), found[0])


class Source:
    """A Python or BUILD file, its tokens and its syntax tree."""

    def __init__(self, path: str, text: str) -> None:
        """Raises SyntaxError, ValueError or TokenError."""
        self.path, self.text = path, text
        self.starts = [0, *(found.end() for found in _NEWLINE.finditer(text))]
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
        """Those in string constants and in dotted names; relative imports are not among them."""
        for start, end in self.strings():
            for found in mentions(self.text[start:end], directory):
                yield Reference(start + found.start, start + found.end, found.words)
        parts = directory.split("/")
        wanted = ".".join(parts).replace(".", " . ").split()
        names = [t for t in self.tokens if t.type in (tokenize.NAME, tokenize.OP)]
        for i in range(len(names) - len(wanted) + 1):
            here = names[i : i + len(wanted)]
            behind_a_dot = i > 0 and names[i - 1].string in (".", "...")
            if not behind_a_dot and [token.string for token in here] == wanted:
                start, end = self.at(here[0].start), self.at(here[-1].end)
                yield Reference(start, end, ".".join(parts))

    def strings(self) -> Iterator[tuple[int, int]]:
        """String literals; an f-string is several tokens."""
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
        for found in self.references(rename.old):
            between = "/" if "/" in found.words else "."
            edits[found.start] = (found.start, found.end, rename.new.replace("/", between))
        old, new = PurePosixPath(rename.old), PurePosixPath(rename.new)
        if old.parent == new.parent:
            for node in self.imports():
                for edit in self._from_above(node, old, new.name):
                    edits[edit[0]] = edit
        return list(edits.values())

    def _from_above(self, node: ast.ImportFrom, old: PurePosixPath, new: str) -> Iterator[Edit]:
        """Edits of `from experiments.grug import base`, and of the same by a relative import."""
        package = PurePosixPath(self.path).parent.parts
        above = package[: max(0, len(package) - node.level + 1)] if node.level else ()
        module = (*above, *(node.module.split(".") if node.module else ()))
        if module == old.parent.parts:
            for alias in node.names:
                if alias.name == old.name:
                    called = alias.asname or alias.name
                    words = new if called == new else f"{new} as {called}"
                    yield (*self.span(alias), words)
        elif node.level and len(above) < len(old.parts) and module[: len(old.parts)] == old.parts:
            start, end = self.span(node)
            inside = [
                token
                for token in self.tokens
                if token.type == tokenize.NAME and start < self.at(token.start) < end
            ]
            token = inside[len(old.parts) - len(above) - 1]
            yield self.at(token.start), self.at(token.end), new
