"""`module_mapping` in tools/locks/BUILD: which modules a distribution brings, by resolve.

Pants takes a distribution for a module of its own name; the mapping says what is otherwise.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from packaging.utils import canonicalize_name

from tools.common.errors import ToolError

FIELD, TARGET = "module_mapping", "python_requirements"
INDENT = "    "

Mapped = Mapping[str, Sequence[str]]


def expected(name: str) -> str:
    """The module that Pants takes a distribution for, where nothing else is said."""
    return name.strip().lower().replace("-", "_")


def read(text: str, path: str, listing: str) -> dict[str, list[str]]:
    """The mapping of the target that reads a listing; `path` is the BUILD file's, to name it.

    Raises:
        ToolError: there is no such target, or its mapping is no plain dict.
    """
    field = _field(_target(text, path, listing))
    return {} if field is None else _value(field, path)


def with_modules(
    text: str, path: str, listing: str, name: str, modules: Sequence[str] | None
) -> str:
    """The BUILD file with the modules of one more distribution, or with None of one less.

    Comments elsewhere stay; the dict itself is written anew, one entry a line.

    Raises:
        ToolError: as `read`, or the edit would do anything else.
    """
    target = _target(text, path, listing)
    field = _field(target)
    mapped = {} if field is None else _value(field, path)
    same = [key for key in mapped if canonicalize_name(key) == canonicalize_name(name)]
    wanted = {key: value for key, value in mapped.items() if key not in same}
    if modules is not None:
        wanted[name] = list(modules)
    if wanted == mapped:
        return text
    edited = _edited(text, target, field, wanted)
    commented = field is not None and "#" in (ast.get_source_segment(text, field.value) or "")
    if commented or read(edited, path, listing) != wanted:
        remedy = f"write {name!r}: {list(modules or ())} into its {FIELD} yourself"
        raise ToolError(f"{path}: the target of {listing} is laid out unusually: {remedy}")
    return edited


def _edited(text: str, target: ast.Call, field: ast.keyword | None, wanted: Mapped) -> str:
    lines = text.splitlines(keepends=True)
    if field is None:
        end = _offset(lines, target.end_lineno or 0, (target.end_col_offset or 0) - 1)
        head = text[:end].rstrip()
        comma = "" if head.endswith((",", "(")) else ","
        return f"{head}{comma}\n{INDENT}{_written(wanted)}\n{text[end:]}"
    start = _offset(lines, field.lineno, field.col_offset)
    end = _offset(lines, field.end_lineno or 0, field.end_col_offset or 0)
    if wanted:
        return f"{text[:start]}{_written(wanted).removesuffix(',')}{text[end:]}"
    head, rest = text[:start].rstrip(), text[end:].lstrip(" ").removeprefix(",")
    return head + (rest.lstrip(" ") if head.endswith("(") else rest)


def _written(mapped: Mapped) -> str:
    entries = (
        f"{INDENT * 2}{json.dumps(name)}: {json.dumps(list(mapped[name]))},\n"
        for name in sorted(mapped, key=str.lower)
    )
    return f"{FIELD}={{\n{''.join(entries)}{INDENT}}},"


def _offset(lines: Sequence[str], line: int, column: int) -> int:
    """The place in the text of a line, from 1, and a column, in UTF-8 bytes as ast counts them."""
    own = lines[line - 1].encode()[:column].decode()
    return sum(map(len, lines[: line - 1])) + len(own)


def _target(text: str, path: str, listing: str) -> ast.Call:
    source = PurePosixPath(listing).name
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ToolError(f"{path}: cannot be read: {error}") from error
    for node in ast.walk(tree):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if named and node.func.id == TARGET:
            given = {
                k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            if given.get("source", "requirements.txt") == source:
                return node
    raise ToolError(f"{path}: no {TARGET} has source={source!r}: add one")


def _field(target: ast.Call) -> ast.keyword | None:
    return next((keyword for keyword in target.keywords if keyword.arg == FIELD), None)


def _value(field: ast.keyword, path: str) -> dict[str, list[str]]:
    try:
        return {name: list(modules) for name, modules in ast.literal_eval(field.value).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ToolError(f"{path}:{field.lineno}: {FIELD} is no plain dict of lists") from error
