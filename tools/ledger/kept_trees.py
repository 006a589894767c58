"""Directories that no commit of the main branch has, kept beside the ledger.

docs/reports/sources/TREE.json holds the files of one; TREE is the beginning of git's id of the
directory's tree, by which they are verified. It is one file, because Pants would read a BUILD file
that lay there. A file whose content the main branch has is named by its id alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import MIB, File, Mode, Tree
from tools.common.git import Git
from tools.common.jsonio import json_text, read_json
from tools.common.objects import algorithm_of, blob_id, tree_id

KEPT = "docs/reports/sources"
SCHEMA_VERSION = 1
MAX_BYTES = 8 * MIB
DIGITS = 12

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MODES: tuple[Mode, ...] = ("file", "executable", "link")


def place(tree: str) -> str:
    """Where the directory of that tree is kept, from the workspace's root."""
    return f"{KEPT}/{tree[:DIGITS]}.json"


def encode(git: Git, tree: str, path: str, files: Tree) -> bytes:
    """The bytes of the file that keeps a directory.

    Args:
        git: the workspace's repository.
        tree: git's full id of the directory's tree.
        path: the directory, from the workspace's root.
        files: the files in it.

    Raises:
        ToolError: the files are not those of the tree, or too many.
    """
    algorithm = algorithm_of(tree)
    on_main = git.blobs_of(git.main())
    written: dict[str, Any] = {}
    for name, file in sorted(files.items()):
        blob = blob_id(file.content, algorithm)
        value = {"blob": blob} if blob in on_main else _written(file.content)
        written[name] = value if file.mode == "file" else value | {"mode": file.mode}
    values = {"schema_version": SCHEMA_VERSION, "path": path, "tree": tree, "files": written}
    data = json_text(values).encode()
    if len(data) > MAX_BYTES:
        raise ToolError(f"{path}: its files are more than {MAX_BYTES:,} bytes to keep")
    if tree_id(_ids(files, algorithm), algorithm) != tree:
        raise ToolError(f"{path}: its files are not those of the tree {tree[:DIGITS]}")
    return data


def load(git: Git, tree: str) -> Tree:
    """The kept files of a tree.

    Raises:
        ToolError: they cannot be read, or are not those of the tree.
    """
    name = place(tree)
    values = read_json(git.root / name, MAX_BYTES, name=name)
    again = f"restore it (git checkout -- {name})"
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise ToolError(f"{name}:1: is no directory that this tool keeps: {again}")
    full, written = values.get("tree"), values.get("files")
    if not (isinstance(full, str) and _ID.fullmatch(full) and isinstance(written, dict)):
        raise ToolError(f"{name}:1: is malformed: {again}")
    blobs = git.blobs(
        value["blob"]
        for value in written.values()
        if isinstance(value, dict)
        and isinstance(value.get("blob"), str)
        and _ID.fullmatch(value["blob"])
    )
    files = {inside: _read(f"{name}:1: {inside[:120]}", inside, value, blobs)
             for inside, value in written.items()}  # fmt: skip
    if not full.startswith(tree[:DIGITS]) or (
        tree_id(_ids(files, algorithm_of(full)), algorithm_of(full)) != full
    ):
        raise ToolError(f"{name}:1: is not what was kept: {again}")
    return files


def _ids(files: Tree, algorithm: str) -> dict[str, tuple[Mode, str]]:
    return {path: (file.mode, blob_id(file.content, algorithm)) for path, file in files.items()}


def _written(content: bytes) -> dict[str, Any]:
    """A file's content as JSON: lines that people can read, or base64."""
    try:
        return {"text": content.decode().split("\n")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _read(place: str, path: str, value: Any, blobs: Mapping[str, bytes]) -> File:
    """One kept file. Raises ToolError, naming the `place`, if it is malformed or git lacks it."""
    parts = PurePosixPath(path).parts
    is_inside = path == "/".join(parts) and not {"..", ".git", ""} & set(parts) and parts
    if not is_inside or path.startswith("/") or not isinstance(value, dict):
        raise ToolError(f"{place}: is no file of a variant")
    mode = value.get("mode", "file")
    if mode not in _MODES:
        raise ToolError(f"{place}: has the mode {mode!r}")
    lines = value.get("text")
    if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
        return File("\n".join(lines).encode(), mode)
    if isinstance(value.get("base64"), str):
        try:
            return File(base64.b64decode(value["base64"], validate=True), mode)
        except binascii.Error as error:
            raise ToolError(f"{place}: is no base64: {error}") from error
    if isinstance(value.get("blob"), str) and value["blob"] in blobs:
        return File(blobs[value["blob"]], mode)
    raise ToolError(f"{place}: git lacks its content: fetch it (git fetch)")
