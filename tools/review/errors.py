"""What stops a review; a bug is a traceback instead."""

from __future__ import annotations

from tools.archive.files import ArchiveError


class ReviewError(ArchiveError):
    """An expected failure; its text is one line with the remedy."""
