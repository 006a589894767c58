"""python -m tools.runs.power NAME --difference BITS --root DIR

Says how many seeds of an experiment and of a copy show a difference of that size, from the spread
that recorded runs have: that of the experiment's seeds, and that of the differences of pairs where
a copy of it is recorded, or where it is one itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.ledger.ledger import Entry, load_ledger
from tools.runs import ledger_claims, origins, run_summary
from tools.runs.compare_runs import HELD_OUT, METRICS, Comparison, Group, Reading, groups
from tools.runs.run_summary import Run
from tools.runs.stats import (
    MOST_SEEDS,
    POWER,
    SIGNIFICANT,
    Sample,
    largest_spread,
    seeds_needed,
)


@dataclass(frozen=True)
class Spread:
    """A standard deviation in bits per byte that n runs, or n pairs of runs, showed."""

    what: str
    value: float
    n: int
    is_paired: bool


def spreads(name: str, entries: Iterable[Entry], runs: Iterable[Run]) -> list[Spread]:
    """The spreads of recorded runs: of the experiment, then of pairs that it is a side of."""
    runs = list(runs)
    own = groups([run for run in runs if run.variant == name], of_origin=True)
    found = [spread for group in own if (spread := _of_seeds(group))]
    for comparisons in ledger_claims.of_ledger(entries, runs).values():
        for one in comparisons:
            if isinstance(one, Comparison) and name in (one.variant.variant, one.origin.variant):
                found += _of_pairs(one)
    return found


def _of_seeds(group: Group) -> Spread | None:
    curves = [METRICS[HELD_OUT](run) for run in group.runs]
    if len(curves) < 2 or not all(curves):
        return None
    value = Sample(tuple(curve[-1][1] for curve in curves)).spread
    return Spread(f"{_names(group)}: held-out values", value, len(curves), False) if value else None


def _of_pairs(comparison: Comparison) -> Iterator[Spread]:
    reading = comparison.readings["tokens"]
    if not isinstance(reading, Reading) or reading.metric != HELD_OUT or len(reading.pairs) < 2:
        return
    value = Sample(tuple(pair.difference for pair in reading.pairs)).spread
    if value:
        what = f"{comparison.variant.variant} less {comparison.origin.variant}, by seed"
        names = f"{_names(comparison.variant)}: {what}"
        yield Spread(names, value, len(reading.pairs), True)


def _names(group: Group) -> str:
    return f"{group.runs[0].run} to {group.runs[-1].run}"


def advice(spread: Spread, difference: float) -> str:
    """How many seeds it takes, in two lines."""
    needed, at_worst = (
        seeds_needed(difference / value, is_paired=spread.is_paired)
        for value in (spread.value, largest_spread(spread.value, spread.n))
    )
    of = "pairs" if spread.is_paired else "seeds"
    test = "paired t-test" if spread.is_paired else "unpaired test"
    return (
        f"{spread.what}: standard deviation {spread.value:.4f} of {spread.n} {of}\n"
        f"  {test}: {_count(needed)} of each; {_count(at_worst)} if the true standard deviation is "
        "the largest of its 80% interval\n"
    )


def _count(seeds: int | None) -> str:
    return f"more than {MOST_SEEDS:,} seeds" if seeds is None else f"{seeds} seeds"


def report(root: Path, name: str, difference: float) -> str:
    """What the command prints.

    Raises:
        ToolError: nobody knows the experiment, or none of its runs shows a spread.
    """
    entries = load_ledger(root)
    origins.known(name, entries)
    runs, faults = run_summary.load_all(root)
    if faults:
        raise ToolError("\n".join(faults))
    found = spreads(name, entries, runs)
    if not found:
        raise ToolError(
            f"{run_summary.RUNS}: {name} has no two seeds with held-out values that tell a spread; "
            "run and record another: ./pants run tools/runs:record -- RUN_DIR"
        )
    head = (
        f"To show a difference of {difference:g} bits per byte with p below {SIGNIFICANT:g} in "
        f"{POWER:.0%} of tries:\n"
    )
    return head + "".join(advice(spread, difference) for spread in found)


def _difference(text: str) -> float:
    """A difference above 0. Raises ArgumentTypeError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no difference: give a number above 0")
    return value


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="power", description="Say how many seeds a difference of some size needs."
    )
    parser.add_argument("name", metavar="NAME", help="experiment, such as base")
    parser.add_argument(
        "--difference",
        type=_difference,
        required=True,
        metavar="BITS",
        help="difference to be shown, in held-out bits per byte",
    )
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    print(report(options.root, options.name, options.difference), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
