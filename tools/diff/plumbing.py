"""The directories of a variant that a copy is not expected to edit, and whose they are."""

from __future__ import annotations

PLUMBING = ("plumbing", "planning")


def is_plumbing(path: str) -> bool:
    """Whether a path within a variant's directory lies in one of PLUMBING."""
    return path.partition("/")[0] in PLUMBING


def whose(own: int, origin: str) -> str:
    """In words: the origin's by name, or how many files are the copy's own."""
    if not own:
        return f"{origin.rpartition('/')[2]}'s"
    return "1 file of its own" if own == 1 else f"{own} files of its own"
