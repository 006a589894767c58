"""A Content-Security-Policy for each page of a built site.

Scripts and styles come from the site's own files. The theme has a few short scripts in its pages;
they are allowed by their digests, and are known from 404.html, in which nobody's text stands.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from tools.common.errors import ToolError

TEMPLATE = "404.html"
_SCRIPT = re.compile(r"<script(?P<attributes>[^>]*)>(?P<body>.*?)</script\s*>", re.S | re.I)
_DATA = re.compile(r"\bsrc\s*=|\btype\s*=\s*[\"']?application/json", re.I)
# The theme writes the way to the site's root into one of its scripts.
_ROOT = re.compile(r'(__md_scope=new URL\()"[\w./~%-]*"')
_HEAD = re.compile(r"<head>(?:\s*<meta charset=[\"']?utf-8[\"']?\s*/?>)?", re.I)
_POLICY = (
    "default-src 'none'; script-src 'self'{digests}; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def inline_scripts(page: str) -> list[str]:
    """The scripts that stand in a page itself and run."""
    return [m["body"] for m in _SCRIPT.finditer(page) if not _DATA.search(m["attributes"])]


def known_scripts(site: Path) -> frozenset[str]:
    """The theme's own inline scripts, without the way to the root."""
    template = site / TEMPLATE
    if not template.is_file():
        return frozenset()
    return frozenset(map(_rootless, inline_scripts(template.read_text(encoding="utf-8"))))


def _rootless(script: str) -> str:
    return _ROOT.sub(r'\1""', script)


def with_policy(page: str, name: str, known: frozenset[str]) -> str:
    """The page with its policy as the first thing that it says.

    Raises:
        ToolError: it has a script that the theme does not have, or no head.
    """
    digests = []
    for script in inline_scripts(page):
        if _rootless(script) not in known:
            shown = " ".join(script.split())[:60]
            raise ToolError(f"{name}: holds a script that is not the theme's: {shown!r}: remove it")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        digests.append(f" 'sha256-{digest}'")
    head = _HEAD.search(page)
    if not head:
        raise ToolError(f"{name}: has no <head> that a policy can stand in: begin it with one")
    policy = _POLICY.format(digests="".join(dict.fromkeys(digests)))
    meta = f'\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return f"{page[: head.end()]}{meta}{page[head.end() :]}"
