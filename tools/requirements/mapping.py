"""`module_mapping` in tools/locks/BUILD: the modules of each distribution, by resolve.

Pants assumes that a distribution has a module of its own name; the mapping lists the exceptions.
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
    """The module that Pants assumes for a distribution without a mapping."""
    return name.strip().lower().replace("-", "_")


def read(text: str, path: str, listing: str) -> dict[str, list[str]]:
    """The mapping of the target that reads a listing; messages call the BUILD file `path`.

    Raises:
        ToolError: there is no such target, or its mapping is not a plain dict.
    """
    field = _field(_target(text, path, listing))
    return {} if field is None else _value(field, path)


def with_modules(
    text: str, path: str, listing: str, name: str, modules: Sequence[str] | None
) -> str:
    """The BUILD file with a distribution mapped to `modules`, or with None without its mapping.

    Comments elsewhere stay; the dict itself is rewritten, one entry per line.

    Raises:
        ToolError: as `read`, or the edit would change anything else.
    """
    target = _target(text, path, listing)
    field = _field(target)
    mapped = {} if field is None else _value(field, path)
    aliases = [key for key in mapped if canonicalize_name(key) == canonicalize_name(name)]
    new_mapping = {key: value for key, value in mapped.items() if key not in aliases}
    if modules is not None:
        new_mapping[name] = list(modules)
    if new_mapping == mapped:
        return text
    edited = _edited(text, target, field, new_mapping)
    commented = field is not None and "#" in (ast.get_source_segment(text, field.value) or "")
    if commented or read(edited, path, listing) != new_mapping:
        remedy = f"write {name!r}: {list(modules or ())} into its {FIELD} yourself"
        raise ToolError(f"{path}: the target of {listing} is laid out unusually: {remedy}")
    return edited


def _edited(text: str, target: ast.Call, field: ast.keyword | None, new_mapping: Mapped) -> str:
    lines = text.splitlines(keepends=True)
    if field is None:
        end = _offset(lines, target.end_lineno or 0, (target.end_col_offset or 0) - 1)
        head = text[:end].rstrip()
        comma = "" if head.endswith((",", "(")) else ","
        return f"{head}{comma}\n{INDENT}{_written(new_mapping)}\n{text[end:]}"
    start = _offset(lines, field.lineno, field.col_offset)
    end = _offset(lines, field.end_lineno or 0, field.end_col_offset or 0)
    if new_mapping:
        return f"{text[:start]}{_written(new_mapping).removesuffix(',')}{text[end:]}"
    head, tail = text[:start].rstrip(), text[end:].lstrip(" ").removeprefix(",")
    return head + (tail.lstrip(" ") if head.endswith("(") else tail)


def _written(mapped: Mapped) -> str:
    entries = (
        f"{INDENT * 2}{json.dumps(name)}: {json.dumps(list(mapped[name]))},\n"
        for name in sorted(mapped, key=str.lower)
    )
    return f"{FIELD}={{\n{''.join(entries)}{INDENT}}},"


def _offset(lines: Sequence[str], line: int, column: int) -> int:
    """The offset in the text of a line, from 1, and a column, in UTF-8 bytes as ast counts them."""
    before = lines[line - 1].encode()[:column].decode()
    return sum(map(len, lines[: line - 1])) + len(before)


def _target(text: str, path: str, listing: str) -> ast.Call:
    source = PurePosixPath(listing).name
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise ToolError(f"{path}: cannot be read: {error}") from error
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if is_call and node.func.id == TARGET:
            constants = {
                k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            if constants.get("source", "requirements.txt") == source:
                return node
    raise ToolError(f"{path}: no {TARGET} has source={source!r}: add one")


def _field(target: ast.Call) -> ast.keyword | None:
    return next((keyword for keyword in target.keywords if keyword.arg == FIELD), None)


def _value(field: ast.keyword, path: str) -> dict[str, list[str]]:
    try:
        return {name: list(modules) for name, modules in ast.literal_eval(field.value).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ToolError(f"{path}:{field.lineno}: {FIELD} is no plain dict of lists") from error
