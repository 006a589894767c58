"""Reads foreign JSON, with the line of each fault; writes JSON the same way each time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import read_text

REMEDY = "correct it, or write it anew"


def parse_json(text: str, name: str, line: int = 1, *, remedy: str = REMEDY) -> Any:
    """The value of a JSON text whose numbers are all finite.

    Args:
        text: the JSON.
        name: the file's name in messages.
        line: the number of the text's first line in that file.
        remedy: what to do about a fault, for the message.

    Raises:
        ToolError: it is not JSON, or a number is not finite; the message names the line.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
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


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is not finite")
    return value
