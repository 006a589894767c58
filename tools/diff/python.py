"""Reads definitions, tokens by line and bound names from Python source.

Sources are parsed, never run. A source that cannot be parsed is compared as text.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Definition:
    """A class, a function or a module-level constant.

    Its lines, [start, end) from 0, include decorators and the comments right above.
    """

    name: str
    kind: str
    start: int
    end: int
    node: ast.stmt = field(repr=False, compare=False)
    inner: tuple[Definition, ...] = ()


def parse(text: str, *, type_comments: bool = False) -> ast.Module | None:
    """The syntax tree; None if the text cannot be parsed, or is nested too deeply."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, type_comments=type_comments)
    except _BROKEN:
        return None


def same_program(old: str, new: str) -> bool:
    """Whether two sources have equal syntax trees, and equal comments on types in them."""
    a, b = (parse(t, type_comments=True) or parse(t) for t in (old, new))
    return a is not None and b is not None and equal(a, b)


def same_but_for_order(old: ast.Module | None, new: ast.Module | None) -> bool:
    """Whether two modules are equal once the functions and classes of each body are sorted."""
    if old is None or new is None:
        return False
    try:
        return equal(old, new) or _sorted_dump(old) == _sorted_dump(new)
    except RecursionError:
        return False


def _sorted_dump(node: ast.Module | ast.ClassDef) -> list[str]:
    definitions, others = [], []
    for stmt in node.body:
        if isinstance(stmt, ast.ClassDef):
            head = copy(stmt)
            head.body = []
            definitions.append(repr([ast.dump(head), *_sorted_dump(stmt)]))
        elif isinstance(stmt, Function):
            definitions.append(ast.dump(stmt))
        else:
            others.append(ast.dump(stmt))
    return [*sorted(definitions), *others]


def outline(tree: ast.Module, lines: Sequence[str]) -> tuple[Definition, ...]:
    """The top-level classes and functions, with the methods of classes, by line."""
    return tuple(_definitions(tree.body, "", lines, 0))


def _definitions(
    body: list[ast.stmt], prefix: str, lines: Sequence[str], floor: int
) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, (ast.ClassDef, *Function)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            while first > floor and lines[first - 1].lstrip().startswith("#"):
                first -= 1
            name, end = prefix + node.name, node.end_lineno or node.lineno
            inner: tuple[Definition, ...] = ()
            if isinstance(node, ast.ClassDef):
                inner = tuple(_definitions(node.body, f"{name}.", lines, node.lineno))
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Definition(name, kind, first, end, node, inner)
        floor = node.end_lineno or floor


def constants(tree: ast.Module) -> Iterator[Definition]:
    """Names that the module binds at top level by an assignment."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            end = node.end_lineno or node.lineno
            yield Definition(targets[0].id, "constant", node.lineno - 1, end, node)


def walk(definitions: Sequence[Definition]) -> Iterator[Definition]:
    """All definitions, outer before inner."""
    for definition in definitions:
        yield definition
        yield from walk(definition.inner)


Seen = Callable[[ast.AST, str, Any, Any], tuple[Any, Any]]
"""(a node of the first tree, a field, its values in both) -> the values to compare."""


def _is_text(stmt: ast.stmt) -> bool:
    return (
        isinstance(stmt, ast.Expr)
        and isinstance(stmt.value, ast.Constant)
        and isinstance(stmt.value.value, str)
    )


def equal(a: object, b: object, *, inner: bool = True, docs: bool = True) -> bool:
    """Whether two syntax trees mean the same; positions in the source do not count.

    Without `inner`, definitions in a class's body are left out: they are compared by their own
    names. Without `docs`, docstrings are left out, those of fields too.
    """
    if inner and docs:
        return equal_as(a, b, None)

    def kept(owner: ast.AST, name: str, x: Any, y: Any) -> tuple[Any, Any]:
        if name == "body" and isinstance(x, list) and isinstance(y, list):
            is_kept = partial(_kept, owner, inner, docs)
            return list(filter(is_kept, x)), list(filter(is_kept, y))
        return x, y

    return equal_as(a, b, kept)


def equal_as(a: object, b: object, seen: Seen | None) -> bool:
    """Whether two syntax trees are equal, with the values of each field as `seen` gives them."""
    stack = [(a, b)]
    while stack:
        a, b = stack.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, ast.AST):
            for name in a._fields:
                values = getattr(a, name, None), getattr(b, name, None)
                stack.append(seen(a, name, *values) if seen else values)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif a != b:
            return False
    return True


_DEFINES = (ast.ClassDef, *Function)


def _kept(owner: ast.AST, inner: bool, docs: bool, stmt: ast.stmt) -> bool:
    """Whether a statement of a body is to be compared."""
    if isinstance(owner, ast.ClassDef) and not inner and isinstance(stmt, _DEFINES):
        return False
    return docs or not isinstance(owner, _DEFINES) or not _is_text(stmt)


Token = tuple[int, str]
_DROPPED = (tokenize.NL, tokenize.ENDMARKER, tokenize.ENCODING)
_SHAPE = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
_FSTRING_EDGE = {"FSTRING_START", "FSTRING_END"}
_OPENING = {"(": ")", "[": "]", "{": "}"}


class _Brackets:
    """Finds trailing commas that mean nothing, unlike those of `(a,)` and `x[a,]`."""

    def __init__(self) -> None:
        self.open: list[list[bool | int]] = []  # (whether it is a call or a {}, commas inside)
        self.last = ""
        self.comma: tuple[int, int] | None = None

    def add(self, kind: int, text: str, place: tuple[int, int]) -> tuple[int, int] | None:
        """Takes the next token, at a place; returns the place of a comma to drop, if any."""
        dropped = None
        if kind == tokenize.OP and text in _OPENING:
            name = self.last.isidentifier() and not keyword.iskeyword(self.last)
            calls = text == "(" and (name or self.last in (")", "]"))
            self.open.append([calls or text == "{", 0])
        elif kind == tokenize.OP and text in _OPENING.values() and self.open:
            free, commas = self.open.pop()
            if self.comma and (free or commas > 1):
                dropped = self.comma
        elif kind == tokenize.OP and text == "," and self.open:
            self.open[-1][1] += 1
        if kind != tokenize.COMMENT:
            self.comma = place if kind == tokenize.OP and text == "," and self.open else None
            self.last = text
        return dropped


def tokens(lines: Sequence[str]) -> list[tuple[Token, ...]] | None:
    """The tokens that begin in each line, normalized; None if the lines cannot be read.

    Quotes, line breaks inside brackets and trailing commas do not count; indentation and comments
    do. A line inside a multi-line string counts as it is written.
    """
    by_line: list[list[Token]] = [[] for _ in range(len(lines) + 2)]
    brackets = _Brackets()
    try:
        for token in tokenize.generate_tokens(io.StringIO("".join(lines), newline="\n").readline):
            kind, text, row = token.type, token.string, token.start[0] - 1
            if kind in _DROPPED:
                continue
            comma = brackets.add(kind, text, (row, len(by_line[row])))
            if comma:
                del by_line[comma[0]][comma[1]]
            if kind in _SHAPE:
                text = ""
            elif kind == tokenize.STRING or tokenize.tok_name[kind] in _FSTRING_EDGE:
                text = _unquoted(text)
            if "\n" in text:
                for offset, piece in enumerate(text.split("\n")):
                    by_line[row + offset].append((kind, piece))
            else:
                by_line[row].append((kind, text))
    except (tokenize.TokenError, *_BROKEN):
        return None
    return [tuple(line) for line in by_line]


class Tokens:
    """The tokens of a parsed file by line, read in parts as they are needed."""

    def __init__(self, lines: Sequence[str], tree: ast.Module) -> None:
        self.lines = lines
        self.starts = [0]
        end = 0
        for node in tree.body:
            decorators = getattr(node, "decorator_list", ())
            start = min([node.lineno, *(d.lineno for d in decorators)]) - 1
            if start >= end and start > self.starts[-1]:
                self.starts.append(start)
            end = node.end_lineno or node.lineno
        self.read: dict[int, list[tuple[Token, ...]]] = {}

    def __getitem__(self, line: int) -> tuple[Token, ...]:
        part_number = bisect_right(self.starts, line) - 1
        first = self.starts[part_number]
        if part_number not in self.read:
            last = (
                self.starts[part_number + 1]
                if part_number + 1 < len(self.starts)
                else len(self.lines)
            )
            part = self.lines[first:last]
            # A part that cannot be read equals only itself.
            unread: list[tuple[Token, ...]] = [((tokenize.ERRORTOKEN, text),) for text in part]
            self.read[part_number] = tokens(part) or unread
        return self.read[part_number][line - first]


def comments(line: tuple[Token, ...]) -> list[str]:
    """The comments of a line."""
    return [text for kind, text in line if kind == tokenize.COMMENT]


def is_name(kind: int) -> bool:
    """Whether a token is a name."""
    return kind == tokenize.NAME


def unparsed(lines: Iterable[tuple[Token, ...]]) -> list[tuple[int, bool, bool, str]]:
    """What a syntax tree does not keep: comments, and the spelling of names beyond ASCII.

    Each with its place among the code: the number of tokens before it (brackets and commas, which a
    layout may add, aside), whether any is on its line, and whether its logical line ends there.
    """
    found = []
    count, last = 0, -1
    for line in lines:
        for n, (kind, text) in enumerate(line):
            if kind == tokenize.COMMENT or (kind == tokenize.NAME and not text.isascii()):
                found.append((count, n > 0, line[-1][0] == tokenize.NEWLINE, text))
            if kind == tokenize.COMMENT or kind in _SHAPE or text in _OPTIONAL:
                continue
            # A string may be written in parts.
            count += not kind == last == tokenize.STRING
            last = kind
    return found


_OPTIONAL = ("(", ")", ",", ";")


def ends_statement(line: tuple[Token, ...]) -> bool:
    """Whether a logical line ends here: a statement, a comment or a blank line."""
    return not line or line[-1][0] in (tokenize.NEWLINE, tokenize.COMMENT)


@lru_cache(maxsize=8192)
def _unquoted(text: str) -> str:
    """A string literal with double quotes, if that changes nothing."""
    if "'" not in text or "\n" in text:
        return text
    match = re.fullmatch(r"(\w*)'(?!'')(.*)'", text)
    if not match:
        # Either end of an f-string is a token of its own.
        return f'{text[:-1]}"' if re.fullmatch(r"\w*'", text) else text
    double_quoted = f'{match[1]}"{match[2]}"'
    first, second = parse(text), parse(double_quoted)
    is_equal = first and second and equal(first, second)
    return double_quoted if is_equal else text
