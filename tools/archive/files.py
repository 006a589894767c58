"""Reading what others wrote, and writing all files or none."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MIB = 2**20


class ArchiveError(Exception):
    """What was given can't be used; one line a fault, with the remedy."""


def read_text(path: Path, limit: int, *, name: str = "") -> str:
    """A UTF-8 file of at most `limit` bytes; `name` stands for it in messages."""
    name = name or str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ArchiveError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise ArchiveError(f"{name}: holds more than {limit:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ArchiveError(f"{name}:{line}: is not UTF-8") from error


def parse_json(text: str, name: str, line: int = 1) -> Any:
    """JSON whose numbers are all finite. Raises ArchiveError with the line of the fault."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        number = line + error.lineno - 1
        raise ArchiveError(f"{name}:{number}: is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{name}:{line}: is no usable JSON: {error}") from error
    return value


def line_of(lines: list[str], key: str) -> int:
    """The line, from 1, on which a JSON text laid out a key a line has `key`; 1 if on none."""
    start = json.dumps(key)
    return next((n for n, line in enumerate(lines, 1) if line.lstrip().startswith(start)), 1)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not finite")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is not finite")
    return value


def write_all(files: Mapping[Path, bytes]) -> None:
    """Writes each file beside its place and then moves all there; on failure none has changed."""
    before: dict[Path, bytes | None] = {}
    written: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            written[path].write_bytes(data)
        for path, temporary in written.items():
            before[path] = path.read_bytes() if path.exists() else None
            os.replace(temporary, path)
    except BaseException:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
        for path, data in before.items():
            path.unlink(missing_ok=True) if data is None else path.write_bytes(data)
        raise


def run(main: Callable[[list[str]], int]) -> None:
    """Ends the process with main's exit code, or with 1 and the lines of an expected failure."""
    try:
        code = main(sys.argv[1:])
    except ArchiveError as error:
        print(error, file=sys.stderr)
        code = 1
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        code = 1
    sys.exit(code)
