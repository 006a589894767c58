"""The pages that tools write, whose HTML is their own: nobody's page of docs/ takes their place."""

from __future__ import annotations

import re

_GENERATED = re.compile(
    r"reports/(grug-archive|compare|variants/[^/]+)\.md|speedrun/leaderboard\.md"
)


def is_generated(path: str) -> bool:
    """Whether a tool writes this page, by its path in docs/."""
    return _GENERATED.fullmatch(path) is not None
