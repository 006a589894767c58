"""Refuses files of docs/ that would bring scripts into the site beside its pages."""

from __future__ import annotations

import re
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text

MAX_DRAWING = MIB
_NAME = re.compile(r"[\w][\w .+-]*")
_DOCUMENTS = (".html", ".htm", ".xhtml", ".xht", ".xml", ".svgz", ".mht", ".mhtml", ".pdf", ".swf")
# Opened by itself, a drawing is a page without a policy.
_ACTIVE = re.compile(
    r"<\s*(?:[\w.-]+:)?(?:script|foreignObject|iframe|object|embed|handler|listener|set|animate)"
    r"|\son\w+\s*=|javascript:|<!ENTITY|<!DOCTYPE|&#|<\?xml-stylesheet",
    re.IGNORECASE,
)


def refuse(path: Path, name: str) -> None:
    """Does nothing for a file that the site may have.

    Args:
        path: the file.
        name: its name in messages.

    Raises:
        ToolError: its name has characters that mean something in HTML, it is a page of its own
            kind, or a drawing that does something.
    """
    if not _NAME.fullmatch(path.name):
        raise ToolError(f"{name}: has a name of more than letters, digits and ._+-: rename it")
    if path.suffix.lower() in _DOCUMENTS:
        raise ToolError(f"{name}: would be a page without a policy: write it in Markdown")
    if path.suffix.lower() == ".svg":
        found = _ACTIVE.search(read_text(path, MAX_DRAWING, name=name))
        if found:
            raise ToolError(f"{name}: a drawing may not have {found[0].strip()!r}: remove it")
