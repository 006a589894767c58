"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing by default."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

Advance = Callable[[int], None]
_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Shows nothing. `phase` yields a function that takes the bytes done since its last call."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Generator[Advance]:
        """Shows a phase; the caller tells how many of `total` units each advance did."""
        yield lambda count: None


class PlainProgress(Progress):
    """A line at the end of each phase, and one every few seconds in a long one.

    A phase that cannot tell how far it is says that it begins.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Generator[Advance]:
        """Prints a line now and then."""
        started = said = time.monotonic()
        done = 0
        if total is None:
            self._say(f"{name}...")

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            now = time.monotonic()
            if now - said >= _SECONDS_BETWEEN_LINES and total:
                said = now
                left = (total - done) * (now - started) / max(done, 1)
                self._say(f"{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB, {left:.0f} s left")

        yield advance
        seconds = time.monotonic() - started
        size = f"{done / 1e6:.1f} MB, {done / 1e6 / max(seconds, 1e-9):.1f} MB/s, " if done else ""
        self._say(f"{name}: {size}{seconds:.1f} s")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class BarProgress(Progress):
    """A bar with bytes done, bytes in all, speed and time left."""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Generator[Advance]:
        """Draws a bar."""
        from rich import progress
        from rich.console import Console

        columns = [
            progress.TextColumn("{task.description:<24}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        ]
        if total is None:
            columns = [columns[0], progress.SpinnerColumn(), progress.TimeElapsedColumn()]
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)
            bar.update(task, completed=total)


def terminal_progress() -> Progress:
    """The progress that suits standard error, without escape codes where NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
    return PlainProgress() if plain else BarProgress()
