"""How a start fails: in one line, which run.py shows."""

from __future__ import annotations


class WorkerError(Exception):
    """The program cannot be started here; the text is one line with the remedy."""
