"""A hook of MkDocs: where readers are, on pages to which no list of the navigation leads.

The page of an experiment or of a speedrun shows which tab it is below; the navigation would grow
with the archive if it named such pages. The page for an address that leads nowhere says what to do.
"""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import urlsplit

ARCHIVE = "reports/grug-archive.md"
# Pages that the navigation leaves out, and the one in it that leads to them.
LISTED_BY = {
    "reports/variants/": ARCHIVE,
    "speedrun/": "speedrun/leaderboard.md",
}


def on_nav(nav: Any, *, config: Any, files: Any, **_: Any) -> Any:
    """Puts such pages into the section of the page that lists them, which stays as it is."""
    sections = {page.file.src_uri: page.parent for page in nav.pages}
    for file in files.documentation_pages():
        for place, lister in LISTED_BY.items():
            if file.src_uri.startswith(place) and file.src_uri not in sections and file.page:
                file.page.parent = sections.get(lister)
    config.extra["grug_archive"] = ARCHIVE in sections
    return nav


NOT_FOUND = """<h1>404: nothing is here</h1>
<p>No page of this site has this address; it may have been renamed. Begin at
<a href="{root}index.html">the start page</a>, or search above.</p>"""
RETIRED = """
<p>An experiment that was retired keeps its page:
<a href="{root}reports/grug-archive.html">the archive</a> lists all.</p>"""


def on_post_template(output_content: str, *, template_name: str, config: Any, **_: Any) -> str:
    """A 404 page with ways out. A host shows it at any address, so its links begin at the root."""
    if template_name != "404.html":
        return output_content
    root = urlsplit(config.site_url or "/").path.rstrip("/") + "/"
    said = NOT_FOUND + (RETIRED if config.extra["grug_archive"] else "")
    shown = said.format(root=html.escape(root))
    return output_content.replace("<h1>404 - Not found</h1>", shown)
