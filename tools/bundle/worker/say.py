"""What run.py says of itself, a line at a time."""

from __future__ import annotations

import contextlib
import sys


def say(line: str) -> None:
    """Prints a line to stderr."""
    with contextlib.suppress(OSError):  # a full disk may hold the log too
        print(f"bundle: {line}", file=sys.stderr, flush=True)
