"""The directories of a variant that a copy is not expected to edit, and a text on who owns them."""

from __future__ import annotations

PLUMBING = ("plumbing", "planning")


def is_plumbing(path: str) -> bool:
    """Whether a path within a variant's directory is below one of PLUMBING."""
    return path.partition("/")[0] in PLUMBING


def whose(own: int, origin: str) -> str:
    """Whose plumbing a copy has: `base's`, or `2 files of its own` if that many differ."""
    if not own:
        return f"{origin.rpartition('/')[2]}'s"
    return "1 file of its own" if own == 1 else f"{own} files of its own"
