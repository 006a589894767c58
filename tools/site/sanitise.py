"""A hook of MkDocs: makes the pages harmless that people wrote, as HTML and after Markdown.

What a pull request brings to docs/, or an entry as its README, runs no script, loads nothing, and
lies over nothing: no style, no class of the theme, no form, no frame. Pages that tools write
(tools/site/reserved.py) hold foreign text escaped, and stay as they are.
"""

from __future__ import annotations

import html
import re
from typing import Any

import nh3

from tools.site.reserved import is_generated

_BLOCKS = "blockquote dd details div dl dt figcaption figure h1 h2 h3 h4 h5 h6 hr li ol p pre ul"
_TABLES = "caption col colgroup table tbody td tfoot th thead tr"
_WORDS = (
    "a abbr b bdi bdo br cite code del dfn em i img ins kbd mark q rp rt ruby s samp small span "
    "strong sub summary sup time u var wbr"
)
TAGS = frozenset(f"{_BLOCKS} {_TABLES} {_WORDS}".split())
ATTRIBUTES = {
    "*": {"class", "id", "title", "lang", "dir", "data-search-exclude"},
    "a": {"href"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan", "scope"},
}
SCHEMES = {"http", "https", "mailto"}
# What a page may set for itself; a theme's template, say, it may not choose.
META = ("title", "hide", "search")
_LANGUAGE = re.compile(r"language-[\w+-]+")
# The theme finds its parts by ids that begin with two underscores.
_ID = re.compile(r"(?!__)[\w.:-]+")
_ELSEWHERE = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*:|[\\/]{2})")


def _attribute(tag: str, name: str, value: str) -> str | None:
    """The value to keep, or None."""
    if name == "class":
        return " ".join(_LANGUAGE.findall(value)) or None
    if name == "id":
        return value if _ID.fullmatch(value) else None
    if name == "src" and _ELSEWHERE.match(value):
        return None
    return value


def clean(page: str) -> str:
    """A page's HTML with what is harmless in it alone."""
    return nh3.clean(
        page,
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes=SCHEMES,
        link_rel="noopener",
    )


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Keeps of a page's front matter what it may set; titles become plain text."""
    if not is_generated(page.file.src_uri):
        page.meta = {key: _plain(page.meta[key]) for key in META if key in page.meta}
    return markdown


def _plain(value: Any) -> Any:
    """Escaped text: the theme writes titles as HTML."""
    return html.escape(html.unescape(value)) if isinstance(value, str) else value


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """The HTML of a page's Markdown, made harmless."""
    return content if is_generated(page.file.src_uri) else clean(content)
