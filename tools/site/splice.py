"""python -m tools.site.splice SITE DIFFS

Puts each fragment DIFFS/NAME.html in place of its comment in SITE/reports/variants/NAME.html.
MkDocs never sees the diffs, for which it would need a minute and which would fill the search index.
A DIFFS/diff.css is copied to SITE/assets/ and linked from these pages.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.files import MIB, read_text
from tools.common.paths import local_path
from tools.ledger.ledger import NAME
from tools.site.markup import PAGES, PLACEHOLDER

MAX_DIFF = 8 * MIB
MAX_PAGE = 2 * MAX_DIFF
STYLE = "diff.css"
_LEFT = re.compile(r"<!-- grug:diff ([^>]*) -->")
_DOCUMENT = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)


def splice(site: Path, diffs: Path) -> int:
    """Puts all diffs into the site, or none, and returns their number.

    Raises:
        ToolError: a fragment is malformed, or a page lacks its place or its diff.
    """
    changed: dict[Path, bytes] = {}
    faults: list[str] = []
    style = ""
    if (diffs / STYLE).exists():
        changed[site / "assets" / STYLE] = (diffs / STYLE).read_bytes()
        style = f'\n<link rel="stylesheet" href="../../assets/{STYLE}">'
    fragments = {path.stem: path for path in sorted(diffs.glob("*.html"))}
    for name, path in fragments.items():
        try:
            fragment = read_fragment(path, name)
            page = site / PAGES / f"{name}.html"
            before = read_text(page, MAX_PAGE, name=str(page))
            place = PLACEHOLDER.format(name=name)
            if before.count(place) != 1:
                count = before.count(place)
                raise ToolError(f"{page}: holds {count} places for its diff: build it again")
            spliced = before.replace(place, fragment).replace("</head>", f"{style}</head>", 1)
            changed[page] = spliced.encode()
        except ToolError as error:
            faults.append(str(error))
    for page in sorted((site / PAGES).glob("*.html")):
        if page not in changed:
            for missing in _LEFT.findall(page.read_text(encoding="utf-8")):
                faults.append(f"{page}: waits for the diff {missing!r}: there is no {missing}.html")
    if faults:
        raise ToolError("\n".join(faults))
    files.write_all(changed)
    return len(fragments)


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
    options = parser.parse_args(arguments)
    if not (options.site / "index.html").exists():
        raise ToolError(f"{options.site}: holds no index.html: build the site first")
    print(f"{options.site}: {splice(options.site, options.diffs)} diffs")
    return 0


if __name__ == "__main__":
    exit_with(main)
