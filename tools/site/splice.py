"""python -m tools.site.splice SITE DIFFS [--check-links [--url URL]]

Puts each fragment DIFFS/NAME.html in place of its comment in SITE/reports/variants/NAME.html, and
a Content-Security-Policy into every page. MkDocs never sees the diffs, for which it would need a
minute and which would fill the search index. The style sheet that fragments begin with is stored
once, in SITE/assets/. With --check-links it then does what tools/site/links.py does, which saves a
process that is given the whole site.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB, read_text
from tools.common.paths import local_path
from tools.ledger.ledger import NAME
from tools.site import links
from tools.site.markup import PAGES, PLACEHOLDER
from tools.site.policy import known_scripts, with_policy

MAX_DIFF = 8 * MIB
MAX_PAGE = 2 * MAX_DIFF
_LEFT = re.compile(r"<!-- grug:diff ([^>]*) -->")
_DOCUMENT = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)
_STYLE = re.compile(r"<style>(.*?)</style>\s*", re.DOTALL)


def splice(site: Path, diffs: Path) -> int:
    """Puts all diffs and the policies into the site, or nothing, and returns the diffs' number.

    Raises:
        ToolError: a fragment is malformed, a page lacks its place or its diff, or a page has a
            script of its own.
    """
    changed: dict[Path, str] = {}
    faults: list[str] = []
    fragments = {path.stem: path for path in sorted(diffs.glob("*.html"))}
    for name, path in fragments.items():
        try:
            changed |= _with_diff(site, name, read_fragment(path, name))
        except ToolError as error:
            faults.append(str(error))
    for page in sorted((site / PAGES).glob("*.html")):
        if page not in changed:
            for missing in _LEFT.findall(page.read_text(encoding="utf-8")):
                faults.append(f"{page}: waits for the diff {missing!r}: there is no {missing}.html")
    if faults:
        raise ToolError("\n".join(faults))
    known = known_scripts(site)
    for page in sorted(site.rglob("*.html")):
        text = changed.get(page) or read_text(page, MAX_PAGE, name=str(page))
        changed[page] = with_policy(text, str(page.relative_to(site)), known)
    files.write_all({path: text.encode() for path, text in changed.items()})
    sitemap = site / "sitemap.xml"
    # Without the site's address MkDocs writes an empty one.
    if sitemap.exists() and "<loc>" not in sitemap.read_text(encoding="utf-8"):
        sitemap.with_name("sitemap.xml.gz").unlink(missing_ok=True)
        sitemap.unlink()
    return len(fragments)


def _with_diff(site: Path, name: str, fragment: str) -> dict[Path, str]:
    """The page of an experiment with its diff, and the style sheet that it asks for."""
    page = site / PAGES / f"{name}.html"
    before = read_text(page, MAX_PAGE, name=str(page))
    place = PLACEHOLDER.format(name=name)
    if (count := before.count(place)) != 1:
        raise ToolError(f"{page}: holds {count} places for its diff: build it again")
    style = _STYLE.match(fragment)
    if not style:
        return {page: before.replace(place, fragment)}
    sheet = style[1].strip() + "\n"
    path = f"assets/diff.{hashlib.sha256(sheet.encode()).hexdigest()[:8]}.css"
    link = f'<link rel="stylesheet" href="../../{path}">\n</head>'
    spliced = before.replace(place, fragment[style.end() :]).replace("</head>", link, 1)
    return {page: spliced, site / path: sheet}


def read_fragment(path: Path, name: str) -> str:
    """The text of a fragment. Raises ToolError for a bad name, or if it is a whole document."""
    if not NAME.fullmatch(name):
        raise ToolError(f"{path}: {name!r} names no experiment")
    fragment = read_text(path, MAX_DIFF)
    if _DOCUMENT.search(fragment):
        raise ToolError(f"{path}: is a whole document: a fragment is needed")
    return fragment


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="splice", description="Put the diffs into the site.")
    parser.add_argument("site", type=local_path, metavar="SITE", help="directory of a built site")
    parser.add_argument(
        "diffs", type=local_path, metavar="DIFFS", help="directory with NAME.html for each diff"
    )
    parser.add_argument(
        "--check-links", action="store_true", help="then fail on what tools.site.links finds"
    )
    parser.add_argument("--url", default="", help="address at which the site is published")
    options = parser.parse_args(arguments)
    if not (options.site / "index.html").exists():
        raise ToolError(f"{options.site}: holds no index.html: build the site first")
    print(f"{options.site}: {splice(options.site, options.diffs)} diffs")
    if options.check_links and (faults := links.check(options.site, options.url)):
        raise ToolError("\n".join(faults))
    return 0


if __name__ == "__main__":
    exit_with(main)
