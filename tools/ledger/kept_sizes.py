"""How large a variant was, kept while it can still say so: docs/reports/sizes/TREE.json.

TREE is the beginning of git's id of its directory's tree. Code that is gone from the workspace is
never run again: the packages have moved on, and a report needs the numbers alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import json_text, parse_json, read_json

SIZES = "docs/reports/sizes"
SCHEMA_VERSION = 1
MAX_BYTES = 4096
DIGITS = 12
KEYS = ("preset", "parameters", "active_parameters", "flops_per_token")


def place(tree: str) -> str:
    """Where the sizes of that tree are kept, from the workspace's root."""
    return f"{SIZES}/{tree[:DIGITS]}.json"


def encode(size: dict[str, Any], tree: str, path: str) -> bytes:
    """The bytes of the file that keeps a size of directory `path`.

    Raises:
        ToolError: it is no size.
    """
    head = {"schema_version": SCHEMA_VERSION, "path": path, "tree": tree[:DIGITS]}
    kept = {**head, **{key: size.get(key) for key in KEYS}}
    check(kept, place(tree))
    return json_text(kept).encode()


def load(root: Path, tree: str) -> dict[str, Any]:
    """A kept size, or {"error": why there is none}, as `python -m tools.diff.sizes` prints it."""
    name = place(tree)
    if not (root / name).is_file():
        return {"error": f"the size was not kept while the code of tree {tree[:DIGITS]} was live"}
    try:
        kept = read_json(root / name, MAX_BYTES, name=name)
        check(kept, name)
    except ToolError as error:
        return {"error": str(error)}
    return {key: kept[key] for key in KEYS}


def check(kept: Any, name: str) -> None:
    """Raises ToolError if the content of the file `name` is not what is kept there."""
    again = f"restore it (git checkout -- {name})"
    if not isinstance(kept, dict) or set(kept) != {"schema_version", "path", "tree", *KEYS}:
        raise ToolError(f"{name}:1: is no size of a variant: {again}")
    if kept["schema_version"] != SCHEMA_VERSION:
        version = kept["schema_version"]
        raise ToolError(f"{name}:1: schema_version is {version!r}, not {SCHEMA_VERSION}: {again}")
    numbers = [kept[key] for key in KEYS[1:]]
    are_numbers = all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in numbers
    )
    if not are_numbers or not isinstance(kept["preset"], str) or kept["parameters"] is None:
        raise ToolError(f"{name}:1: is no size of a variant: {again}")


def read_argument(text: str) -> dict[str, dict[str, Any]]:
    """The sizes that the plugin measured: {"variant": SIZE, "origin": SIZE}, those that it could.

    Raises:
        ToolError: the text is malformed.
    """
    sizes = parse_json(text or "{}", "--sizes")
    if not isinstance(sizes, dict) or not all(isinstance(size, dict) for size in sizes.values()):
        raise ToolError('--sizes: write {"variant": SIZE, "origin": SIZE}')
    return {side: size for side, size in sizes.items() if "error" not in size}
