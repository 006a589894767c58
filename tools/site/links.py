"""python -m tools.site.links SITE

Checks that every link of a built site leads to an existing file and anchor, and that no page loads
anything from another host. `mkdocs build --strict` sees only the links written in Markdown.
"""

from __future__ import annotations

import argparse
import html
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path

# Attributes that hold links, and the kinds of <link> that a page loads by itself.
LEADS = {"href", "src", "action", "formaction", "poster", "data", "cite", "xlink:href", "srcset"}
_LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect"}
# Comments and the content of scripts and styles are skipped.
_TAG = re.compile(
    r"""<!--.*?-->
    |<(?P<raw>script|style)\b(?P<own>(?:[^>"']++|"[^"]*+"|'[^']*+')*+)>.*?</(?P=raw)\s*>
    |<(?P<tag>[a-z][a-z0-9:-]*+)\s(?P<attributes>(?:[^>"']++|"[^"]*+"|'[^']*+')*+)>""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""")
_TELLING = re.compile(
    r"\b(?:id|name|href|src|srcset|action|formaction|poster|data|cite|style)\s*=", re.IGNORECASE
)
_STYLE_URL = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
HARMLESS = ("http:", "https:", "mailto:")


@dataclass(frozen=True)
class Link:
    """The target of a link, and whether the page loads it by itself."""

    line: int
    target: str
    loads: bool


@dataclass
class Page:
    """The anchors that a page defines, and its links."""

    anchors: set[str] = field(default_factory=set)
    links: list[Link] = field(default_factory=list)


def read(text: str) -> Page:
    """Scans a page's tags by regular expressions: html.parser needs seconds for a large diff."""
    page, line, counted_to = Page(), 1, 0
    for match in _TAG.finditer(text):
        tag = (match["tag"] or match["raw"] or "").lower()
        attributes = match["attributes"] or match["own"] or ""
        if not _TELLING.search(attributes):
            continue
        values = {
            key.lower(): html.unescape(value.strip("\"'"))
            for key, value in _ATTRIBUTE.findall(attributes)
        }
        if values.get("id"):
            page.anchors.add(values["id"])
        if tag == "a" and values.get("name"):
            page.anchors.add(values["name"])
        if targets := list(_targets(tag, values)):
            line, counted_to = line + text.count("\n", counted_to, match.start()), match.start()
            page.links += [Link(line, target.strip(), loads) for target, loads in targets]
    return page


def _targets(tag: str, values: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """(target, whether the page loads it by itself) of a tag's attributes."""
    loads = tag not in ("a", "area", "form", "button", "blockquote", "q")
    if tag == "link":
        loads = bool(_LOADING_LINKS & set(values.get("rel", "").lower().split()))
    for key in sorted(LEADS & values.keys()):
        if key == "srcset":
            yield from ((part.split()[0], loads) for part in values[key].split(",") if part.strip())
        elif key != "data" or tag == "object":
            yield values[key], loads
    yield from ((target, True) for target in _STYLE_URL.findall(values.get("style", "")))


def check(site: Path, url: str = "") -> list[str]:
    """One line per fault, by page and line; empty if there is none.

    `url` is where the site is published: its 404 page names things from there.
    """
    root = urlsplit(url).path.rstrip("/")
    names = {
        Path(directory, name).relative_to(site).as_posix()
        for directory, _, files in os.walk(site)
        for name in files
    }
    pages = {
        name: read((site / name).read_text(encoding="utf-8", errors="replace"))
        for name in sorted(names)
        if name.endswith((".html", ".htm"))
    }
    faults = []
    for name, page in pages.items():
        checked = set()
        for link in page.links:
            if link not in checked and (fault := _fault(link, name, names, pages, root)):
                faults.append(f"{name}:{link.line}: {fault}")
            checked.add(link)
    for name in sorted(name for name in names if name.endswith(".css")):
        for number, line in enumerate((site / name).read_text(encoding="utf-8").splitlines(), 1):
            for target in _STYLE_URL.findall(line):
                if fault := _fault(Link(number, target, True), name, names, pages):
                    faults.append(f"{name}:{number}: {fault}")
    return faults


def _fault(
    link: Link, page: str, names: set[str], pages: dict[str, Page], root: str = ""
) -> str | None:
    shown = link.target[:120]
    if _SCHEME.match(link.target):
        if link.target.startswith("data:") and link.loads:
            return None
        if link.loads:
            return f"asks another host: {shown!r}"
        return (
            None if link.target.startswith(HARMLESS) else f"no link that a page may have: {shown!r}"
        )
    parts = urlsplit(link.target)
    path, anchor = unquote(parts.path), unquote(parts.fragment)
    if path.startswith("/"):
        # MkDocs can't know where its 404 page is shown; elsewhere it breaks under file://.
        if posixpath.basename(page) != "404.html":
            return f"absolute link: {shown!r}"
        target = path.removeprefix(root).lstrip("/")
    else:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
    if target in (".", "") or path.endswith("/"):
        target = posixpath.normpath(posixpath.join(target, "index.html"))
    if target not in names:
        return f"broken link: {shown!r}: there is no {target}"
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"broken link: {shown!r}: {target} has no #{anchor}"
    return None


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="links", description="Find the broken links of a site.")
    parser.add_argument("site", type=local_path, metavar="SITE", help="directory of a built site")
    parser.add_argument("--url", default="", help="address at which the site is published")
    options = parser.parse_args(arguments)
    if not (options.site / "index.html").exists():
        raise ToolError(f"{options.site}: holds no index.html: build the site first")
    if faults := check(options.site, options.url):
        print("\n".join(faults), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_with(main)
