"""Reads foreign JSON, with the line of each fault; writes JSON the same way each time."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import read_text

REMEDY = "correct it, or write it anew"


def parse_json(text: str, name: str, line: int = 1, *, remedy: str = REMEDY) -> Any:
    """The value of a JSON text; its numbers are finite, and no object of it has a key twice.

    Args:
        text: the JSON.
        name: the file's name in messages.
        line: the number of the text's first line in that file.
        remedy: what to do about a fault, for the message.

    Raises:
        ToolError: it is not JSON, a number is not finite, or a key stands twice, of which readers
            take one or the other; the message names the line.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object
        )
    except _Duplicate as error:
        number = line + text[: _second(text)].count("\n")
        raise ToolError(f"{name}:{number}: the key {error} stands twice; {remedy}") from error
    except json.JSONDecodeError as error:
        number = line + error.lineno - 1
        fault = error.msg.removesuffix(" at")  # Python continues with the place
        raise ToolError(
            f"{name}:{number}: is no JSON: {fault} at column {error.colno}; {remedy}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{name}:{line}: is no usable JSON: {error}; {remedy}") from error


def read_json(path: Path, limit: int, *, name: str = "", remedy: str = REMEDY) -> Any:
    """The value of a JSON file of at most `limit` bytes; messages call the file `name`.

    Raises:
        ToolError: the file cannot be read, is too large, or is not JSON with finite numbers.
    """
    return parse_json(read_text(path, limit, name=name), name or str(path), remedy=remedy)


def json_text(value: Any) -> str:
    """A JSON file for people and `git diff`: one key per line, sorted, with a final newline."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def json_line(value: Any) -> str:
    """The canonical JSON of a value, for digests and comparisons: sorted, no spaces, one line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def line_of(lines: list[str], key: str) -> int:
    """The number, from 1, of the line that begins with `key` in a JSON text of one key per line.

    1 if there is none.
    """
    start = json.dumps(key)
    return next((n for n, line in enumerate(lines, 1) if line.lstrip().startswith(start)), 1)


class _Duplicate(Exception):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises _Duplicate if a key of it stands twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise _Duplicate(repr(twice)[:80])
    return values


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')


def _second(text: str) -> int:
    """Where a key stands for the second time in the first object to end that has one twice."""
    keys: list[list[tuple[str, int]]] = []
    last = ("", 0)
    for token in _TOKEN.finditer(text):
        if token[0][0] == '"':
            last = (json.loads(token[0], strict=False), token.start())
        elif token[0] == ":":
            keys[-1].append(last)
        elif token[0] in "{[":
            keys.append([])
        else:
            seen: set[str] = set()
            for key, place in keys.pop():
                if key in seen:
                    return place
                seen.add(key)
    return 0


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is not finite")
    return value
