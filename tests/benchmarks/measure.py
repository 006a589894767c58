"""What all benchmarks share: rounds by turns, statistics, the machine, the report, the flags."""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from tests.benchmarks.worker import cores

SCHEMA_VERSION = 1
PAUSE = 0.2  # seconds in which the thread pool of the last one to compute goes to sleep
RESAMPLES = 2000


class BenchmarkError(Exception):
    """There is no result to show; the message says why."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and the interval that holds it with 95% confidence."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Series:
    """What one contestant did in one case."""

    case: str
    name: str
    values: tuple[float, ...]
    """One a round, in the order of the rounds."""
    facts: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    """Further columns, by their heading."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Series of one kind; in each case ours comes first."""

    title: str
    unit: str
    better: Literal["more", "less"]
    series: tuple[Series, ...]

    def case(self, name: str) -> list[Series]:
        return [one for one in self.series if one.case == name]


@dataclasses.dataclass(frozen=True)
class Aim:
    """A bound to reach, and what was found."""

    what: str
    found: Spread
    kind: Literal["at least", "at most"]
    bound: float

    @property
    def reached(self) -> bool:
        found = self.found.median
        return found >= self.bound if self.kind == "at least" else found <= self.bound


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a benchmark found, as its JSON holds it."""

    benchmark: str
    date: str
    commit: str
    """With a trailing + where the tree had changes."""
    machine: Mapping[str, float | str]
    load: float
    """Processes that ran or waited for a core, before the start: more than 0.5 disturbs."""
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    tables: tuple[Table, ...]
    aims: tuple[Aim, ...] = ()
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What could not be measured, and why."""

    def to_json(self) -> str:
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """All of it or nothing, whenever this process is killed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(self.to_json())
        part.replace(path)

    @staticmethod
    def read(path: Path) -> "Report":
        """Raises BenchmarkError when the file is not a report of this schema version."""
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            if (version := content.pop("schema_version")) != SCHEMA_VERSION:
                raise BenchmarkError(f"{path}: schema {version}, this reads {SCHEMA_VERSION}")
            for table in content["tables"]:
                for row in table["series"]:
                    row["values"] = tuple(row["values"])
                table["series"] = tuple(Series(**row) for row in table["series"])
            for aim in content["aims"]:
                aim["found"] = Spread(**aim["found"])
            content["tables"] = tuple(Table(**table) for table in content["tables"])
            content["aims"] = tuple(Aim(**aim) for aim in content["aims"])
            return Report(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchmarkError(f"{path}: no report of a benchmark: {error!r}") from error


def spread(values: Sequence[float]) -> Spread:
    """The median and its bootstrap interval; the same values give the same interval."""
    found = np.asarray(values, np.float64)
    draws = np.random.default_rng(0).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.quantile(np.median(found[draws], axis=1), (0.025, 0.975))
    return Spread(float(np.median(found)), float(low), float(high))


def advantage(ours: Series, other: Series, better: str) -> tuple[float, ...]:
    """How many times better ours was in each round; what slows a round slows both."""
    pairs = zip(ours.values, other.values, strict=True)
    return tuple(a / b if better == "more" else b / a for a, b in pairs)


def best_peer(table: Table, case: str) -> Series:
    """The one whose median is best, ours left out. Raises BenchmarkError if there is none."""
    _, *peers = table.case(case)
    if not peers:
        raise BenchmarkError(f"{case or table.title}: there is nothing to compare with")
    sign = 1 if table.better == "more" else -1
    return max(peers, key=lambda peer: sign * float(np.median(peer.values)))


def against_best(table: Table, case: str, what: str, bound: float) -> Aim:
    """The aim to be `bound` times as good as the best peer."""
    best = best_peer(table, case)
    found = spread(advantage(table.case(case)[0], best, table.better))
    return Aim(f"{what}, against {best.name}", found, "at least", bound)


def interleave(
    contestants: Mapping[Any, Callable[[], float]],
    rounds: int,
    *,
    pause: float = PAUSE,
    until: float = math.inf,
) -> dict[Any, tuple[float, ...]]:
    """Asks all in turn, `rounds` times; each round begins with another. What they returned.

    Of the rounds after the first, only those that would end before time.monotonic() is `until`, if
    they take as long as the one before.
    """
    found: dict[Any, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    began = before = time.monotonic()
    for number in range(rounds):
        before, began = began, time.monotonic()
        if number and began + (began - before) > until:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            found[name].append(contestants[name]())
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {name: tuple(values) for name, values in found.items()}


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def number(x: float) -> str:
    """Three digits, or all of a whole part."""
    if x == 0 or abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.2g}"


def machine(accelerator: str = "") -> dict[str, float | str]:
    """What the numbers depend on; no name of a host or a user."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    described: dict[str, float | str] = {
        "cpu": cpu,
        "cores": cores(),
        "memory_gib": round(pages / 2**30),
        "kernel": f"{platform.system()} {platform.release()}",
    }
    if accelerator:
        described["accelerator"] = accelerator
    return described


def commit(besides: Path | None = None) -> str:
    """Of the working directory, which under ./pants run is the workspace; "unknown" without git.

    A + says that files differ from it, but the one at `besides`.
    """

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()

    others = [".", f":(exclude){besides}"] if besides and not besides.is_absolute() else []
    changed = git("status", "--short", "--", *others)
    return (git("rev-parse", "HEAD")[:12] or "unknown") + ("+" if changed else "")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return int(text)


def flags_of(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=name, description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=7, help="timed rounds (7)")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all that was found to OUT")
    return parser


def report_of(
    flags: argparse.Namespace,
    tables: Sequence[Table],
    *,
    load: float,
    aims: Sequence[Aim] = (),
    versions: Mapping[str, str] | None = None,
    missing: Mapping[str, str] | None = None,
    accelerator: str = "",
) -> Report:
    """The report of what was found here, now."""
    return Report(
        benchmark=flags.benchmark,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        commit=commit(besides=flags.json),
        machine=machine(accelerator),
        load=load,
        versions={"python": platform.python_version(), **(versions or {})},
        # Paths are of this machine alone.
        options={
            k: v
            for k, v in sorted(vars(flags).items())
            if k != "benchmark" and v is not None and not isinstance(v, Path)
        },
        tables=tuple(tables),
        aims=tuple(aims),
        missing=missing or {},
    )


def show(report: Report) -> None:
    """Prints the tables, the aims, and what is missing."""
    from tests.benchmarks.page import overview_rows, render_table  # the page reads reports

    for table in report.tables:
        print(f"\n{table.title}\n\n{render_table(table)}")
    print()
    for row in overview_rows(report):
        print(" ".join(row))
    for name, why in report.missing.items():
        print(f"not measured: {name}: {why}")


def keep(flags: argparse.Namespace, report: Report) -> None:
    """Writes the report where --json says."""
    if flags.json:
        report.write(flags.json)


def finish(flags: argparse.Namespace, tables: Sequence[Table], **facts: Any) -> None:
    """Prints the tables and the aims, and writes the report: `facts` are those of report_of."""
    report = report_of(flags, tables, **facts)
    show(report)
    keep(flags, report)


def run(
    name: str, main: Callable[[argparse.Namespace, float], None], parser: argparse.ArgumentParser
) -> NoReturn:
    """Runs a benchmark. Exit codes: 0 done, 1 no result, in one line, 2 bad flags."""
    flags = parser.parse_args()
    flags.benchmark = name
    try:
        main(flags, os.getloadavg()[0])
    except BenchmarkError as error:
        sys.exit(f"{name}: {error}")
    sys.exit(0)
