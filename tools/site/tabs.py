"""A hook of MkDocs: the page of an experiment or of a speedrun shows which tab it is below.

The navigation would grow with the archive if it named such pages, so it does not.
"""

from __future__ import annotations

from typing import Any

# Pages that the navigation leaves out, and the one in it that leads to them.
LISTED_BY = {
    "reports/variants/": "reports/grug-archive.md",
    "speedrun/": "speedrun/leaderboard.md",
}


def on_nav(nav: Any, *, files: Any, **_: Any) -> Any:
    """Puts such pages into the section of the page that lists them, which stays as it is."""
    sections = {page.file.src_uri: page.parent for page in nav.pages}
    for file in files.documentation_pages():
        for place, lister in LISTED_BY.items():
            if file.src_uri.startswith(place) and file.src_uri not in sections and file.page:
                file.page.parent = sections.get(lister)
    return nav
