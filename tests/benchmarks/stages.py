"""Parts of a long benchmark, one after another: what hangs or crashes loses its own part alone.

A stage is a process with a limit of time. It writes a report whenever it has found something, which
is kept whatever becomes of the process.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.benchmarks.contest import last_words
from tests.benchmarks.measure import BenchmarkError, Report, Series, Table

POLL = 0.2  # seconds between two looks at a stage
GRACE = 10  # seconds until a killed process is given up
STAGE = "GRUG_BENCHMARK_STAGE"  # its name, in the environment of a stage


@dataclasses.dataclass(frozen=True)
class Stage:
    """A process to run.

    Three words of its command stand for others: {out}: the report that it is to write; {limit}: its
    seconds; {so_far}: the report of the stages before it.
    """

    name: str
    limit_s: float
    command: Sequence[str]


@dataclasses.dataclass
class Stages:
    """Runs stages and keeps what they found in one report.

    A stage may take what is left of the limits of those before it.
    """

    empty: Report
    """The report to which the stages' are added."""
    out: Path
    """Written anew, whole, whenever there is something new."""
    log: IO[str]
    """Gets what the stages print."""
    scratch: Path
    env: Mapping[str, str]
    ends: float
    """time.monotonic() at which all is over."""
    begun: list[str] = dataclasses.field(default_factory=list)
    ran: dict[str, Series] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    def run(self, stages: Sequence[Stage]) -> Report:
        """Runs them in this order. What they found, and how long each took."""
        planned = time.monotonic()
        for stage in stages:
            began = time.monotonic()
            planned += stage.limit_s
            ends = min(max(planned, began + stage.limit_s), self.ends)
            limit = ends - began
            print(f"{stage.name}: {limit:.0f} s at most", file=sys.stderr, flush=True)
            why = "no time was left" if limit < 1 else self.one(stage, limit)
            if why:
                self.missing[stage.name] = why
            facts = {"limit, s": round(limit), "outcome": why or "done"}
            self.ran[stage.name] = Series(stage.name, "", (time.monotonic() - began,), facts)
            print(f"{stage.name}: {why or 'done'}", file=sys.stderr, flush=True)
            self.write()
        return self.report()

    def one(self, stage: Stage, limit: float) -> str:
        """Runs one. Why it did not end well, or nothing."""
        ends, part = time.monotonic() + limit, self.part(stage.name)
        words = {"{out}": str(part), "{limit}": str(int(limit)), "{so_far}": str(self.out)}
        self.begun.append(stage.name)
        self.log.write(f"--- {stage.name}\n")
        self.log.flush()
        start, seen = self.log.tell(), 0
        process = subprocess.Popen(
            [words.get(word, word) for word in stage.command],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**self.env, STAGE: stage.name},
            start_new_session=True,
        )
        try:
            while time.monotonic() < ends:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.ended(process.wait(POLL), start)
                if part.exists() and part.stat().st_mtime_ns != seen:
                    seen = part.stat().st_mtime_ns
                    self.write()
            return f"killed at its limit of {limit:.0f} s"
        finally:  # with all that it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)

    def ended(self, code: int, start: int) -> str:
        if code == 0:
            return ""
        said = Path(self.log.name).read_bytes()[start:].decode(errors="replace")
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        return f"{how}: {last_words(said)}"

    def part(self, name: str) -> Path:
        return self.scratch / f"{name}.json"

    def report(self) -> Report:
        """All that was found so far."""
        found = []
        for name in self.begun:
            if (path := self.part(name)).exists():
                try:
                    found.append(Report.read(path))
                except BenchmarkError as error:
                    self.missing[name] = str(error)
        ran = Table("Stages", "seconds", "less", tuple(self.ran.values()))
        return merged(self.empty, found, self.missing, [ran] * bool(self.ran))

    def write(self) -> None:
        self.report().write(self.out)


def merged(
    empty: Report, parts: Sequence[Report], missing: Mapping[str, str], more: Sequence[Table]
) -> Report:
    """`empty` with what the parts have; tables of one title become one."""
    tables: dict[str, Table] = {}
    for table in [table for part in parts for table in part.tables] + list(more):
        before = tables.get(table.title, dataclasses.replace(table, series=()))
        series = (*before.series, *table.series)
        tables[table.title] = dataclasses.replace(table, series=series)
    versions, lacking = dict(empty.versions), dict(missing)
    for part in parts:
        versions |= part.versions
        lacking |= part.missing
    aims = tuple(aim for part in parts for aim in part.aims)
    return dataclasses.replace(
        empty, tables=tuple(tables.values()), aims=aims, versions=versions, missing=lacking
    )


def end_with_runner() -> None:
    """In a stage: ends it, with all that it started, when its runner ends, however that ends."""
    if STAGE not in os.environ:
        return

    def wait() -> None:
        sys.stdin.read()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def ending_on(*signals: signal.Signals) -> None:
    """Has these signals end this process by an exception, so that what it started is ended."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    for one in signals:
        signal.signal(one, end)
