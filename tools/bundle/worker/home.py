"""Where a worker keeps environments and unpacked sources."""

from __future__ import annotations

import errno
import os
import tempfile

from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.say import say


def home_of_venvs() -> str:
    """A directory that can be written; one of this machine's own where the home cannot be."""
    named = os.environ.get("GRUG_VENVS")
    places = [named] if named else [os.path.expanduser("~/.cache/grug/venvs"), _temporary_home()]
    for place in places:
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if error.errno == errno.ENOSPC or place == places[-1]:
                raise WorkerError(advice(place, error)) from error
            say(f"{place}: {error.strerror}; using {places[-1]}")
            continue
        if place == places[-1] and not named and os.lstat(place).st_uid != os.getuid():
            raise WorkerError(f"{place} belongs to another user: name a directory in GRUG_VENVS")
        return os.path.abspath(place)
    raise AssertionError


def _temporary_home() -> str:
    return os.path.join(tempfile.gettempdir(), f"grug-venvs-{os.getuid()}")


def advice(place: str, error: OSError) -> str:
    """What is wrong with a home of environments, and the remedy."""
    return (
        f"{place}: {error.strerror}: name a directory with room that can be written in GRUG_VENVS"
    )
