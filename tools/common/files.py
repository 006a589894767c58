"""Files: read with a size limit, written all or none, and described as entries of a tree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.common.errors import ToolError

MIB = 2**20

Mode = Literal["file", "executable", "link", "submodule"]


@dataclass(frozen=True)
class File:
    """A file's bytes; for a symbolic link, the path it points to; for a submodule, its commit."""

    content: bytes
    mode: Mode = "file"


Tree = Mapping[str, File]
"""Files by their path within a directory."""


def read_text(path: Path, limit: int, *, name: str = "") -> str:
    """The text of a UTF-8 file of at most `limit` bytes; messages call the file `name`.

    Raises:
        ToolError: the file cannot be read, is too large, or is not UTF-8.
    """
    name = name or str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ToolError(f"{name}: cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise ToolError(f"{name}: holds more than {limit:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ToolError(f"{name}:{line}: is not UTF-8") from error


def require_directory(root: Path) -> None:
    """Raises ToolError if the workspace that a command names is no directory."""
    if not root.is_dir():
        raise ToolError(f"{root}: is no directory; name the workspace with --root")


def has_files(directory: Path) -> bool:
    """Whether a directory holds a file, other than what Python leaves behind when it is removed."""
    return any(
        path.is_symlink() or not path.is_dir()
        for path in directory.rglob("*")
        if "__pycache__" not in path.relative_to(directory).parts
    )


def write_all(files: Mapping[Path, bytes]) -> None:
    """Writes all files or, on failure, none: each beside its place first, then moved there.

    Raises:
        OSError: a file cannot be written; the others are as they were.
    """
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
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)
        raise
