"""Text that others wrote, made harmless. Pages hold it as HTML, which Markdown leaves alone."""

from __future__ import annotations

import html
import re

# Experiments' pages, in docs/ and in the site.
PAGES = "reports/variants"
# Where splice.py puts a diff: the name is the page's own.
PLACEHOLDER = "<!-- grug:diff {name} -->"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PART = re.compile(r"`([^`]+)`|(https?://[^\s<>\"'`]*[^\s<>\"'`.,;:)\]])")


def text(value: str) -> str:
    """Escaped for element content and attribute values."""
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", value), quote=True)


def inline(value: str) -> str:
    """Escaped; `code` in backticks and http addresses work, nothing else of Markdown does."""
    found, end = [], 0
    for part in _PART.finditer(value):
        found.append(text(value[end : part.start()]))
        code, address = part.groups()
        if code is not None:
            found.append(f"<code>{text(code)}</code>")
        else:
            found.append(f'<a href="{text(address)}" rel="noopener nofollow">{text(address)}</a>')
        end = part.end()
    return "".join(found) + text(value[end:])


def clip(value: str, length: int) -> str:
    """At most `length` characters, cut between words."""
    if len(value) <= length:
        return value
    cut = value[: length - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"


def slug(value: str) -> str:
    """A text as an anchor: lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")


def heading(value: str) -> str:
    """Plain text as Markdown: everything that may mean something is escaped."""
    return re.sub(r"([^\w\s])|_", r"\\\g<0>", _CONTROL.sub("", value))
