"""A Jupyter notebook as text to compare: its cells, without what a run left in them."""

from __future__ import annotations

import json
from typing import Any

NOTE = "a notebook: compared by cells, without outputs, execution counts and ids"


def cells(content: bytes) -> bytes | None:
    """The kernel, and the type, the tags and the source of each cell; None if it is no notebook.

    A line `%% code` or the like begins a cell.
    """
    try:
        notebook = json.loads(content)
        kernel = (notebook.get("metadata") or {}).get("kernelspec") or {}
        pieces = [f"%% kernel {json.dumps(kernel.get('name'))}\n"]
        for cell in notebook["cells"]:
            pieces += [_head(cell), _source(cell["source"])]
        return "".join(pieces).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def _head(cell: dict[str, Any]) -> str:
    """What runs and shows a cell: its type and tags, and other metadata of its own."""
    metadata = cell.get("metadata") or {}
    attached = {"attachments": sorted(cell["attachments"])} if cell.get("attachments") else {}
    kept = {key: value for key, value in metadata.items() if key not in _VIEW} | attached
    said = f" {json.dumps(kept, sort_keys=True)}" if kept else ""
    return f"%% {cell['cell_type']}{said}\n"


# Metadata of how a cell was shown or run.
_VIEW = ("collapsed", "execution", "scrolled", "jupyter", "ExecuteTime", "outputId", "id", "colab")


def _source(source: str | list[str]) -> str:
    text = source if isinstance(source, str) else "".join(source)
    return text if text.endswith("\n") or not text else f"{text}\n"
