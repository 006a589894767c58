"""A Jupyter notebook as text to compare: its cells, without what a run left in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

NOTE = (
    "a notebook: compared by cells, without outputs, execution counts and ids, "
    "and metadata that a run or a viewer leaves"
)

# Metadata of how a notebook, or a cell, was shown or run.
_VIEW = ("widgets", "vscode")
_CELL_VIEW = (
    "collapsed",
    "execution",
    "scrolled",
    "jupyter",
    "ExecuteTime",
    "outputId",
    "id",
    "colab",
)
# What a run leaves in a cell itself.
_RUN = ("outputs", "execution_count", "id")
# A line of a source that could be read as the first one of a cell.
_LIKE_HEAD = re.compile(r"^(?=\\*%% )", re.MULTILINE)


def cells(content: bytes) -> bytes | None:
    """The notebook's metadata, and the type, metadata and source of each cell.

    A line `%% code` or the like begins a cell; a source's own lines of this form have one more
    backslash before them. Other notebooks have other texts, but for what NOTE says. None if it is
    no notebook, or one that programs read differently: with a key twice in an object, say.
    """
    try:
        notebook = json.loads(content, object_pairs_hook=_object)
        pieces = [*_about(notebook)]
        for cell in notebook["cells"]:
            pieces += [_head(cell), _source(cell["source"])]
        return "".join(pieces).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _object(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(entries)) < len(entries):
        raise ValueError("a key that is there twice")
    return dict(entries)


def _written(value: object) -> str:
    """A value on one line. Raises ValueError for numbers that JSON cannot hold."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _about(notebook: dict[str, Any]) -> Iterator[str]:
    """A line for each entry of the notebook and of its metadata."""
    for key, value in sorted(notebook.items()):
        if key not in ("cells", "metadata"):
            yield f"{_written(key)}: {_written(value)}\n"
    metadata = {k: v for k, v in notebook.get("metadata", {}).items() if k not in _VIEW}
    if "kernelspec" in metadata:
        kernel = metadata["kernelspec"].items()
        metadata["kernelspec"] = {k: v for k, v in kernel if k != "display_name"}
    if "language_info" in metadata:
        # The kernel writes the rest, its version among it.
        metadata["language_info"] = metadata["language_info"].get("name")
    for key, value in sorted(metadata.items()):
        yield f"metadata {_written(key)}: {_written(value)}\n"


def _head(cell: dict[str, Any]) -> str:
    """What runs and shows a cell: its type, its metadata, and what else it has."""
    kind = cell["cell_type"]
    if not kind.isidentifier():
        raise ValueError(f"{kind!r} is no type of a cell")
    metadata = {k: v for k, v in cell.get("metadata", {}).items() if k not in _CELL_VIEW}
    known = ("cell_type", "metadata", "source", *_RUN)
    more = {k: v for k, v in cell.items() if k not in known}
    if "attachments" in more:
        # Images: long, and not to be read.
        written = _written(more["attachments"]).encode()
        more["attachments"] = f"sha256 {hashlib.sha256(written).hexdigest()}"
    said = [metadata, more] if more else [metadata] if metadata else []
    return " ".join([f"%% {kind}", *map(_written, said)]) + "\n"


def _source(source: str | list[str]) -> str:
    text = source if isinstance(source, str) else "".join(source)
    return _LIKE_HEAD.sub(r"\\", text) + "\n"
