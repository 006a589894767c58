"""python -m tools.runs.claim NAME --against ORIGIN --root DIR

Compares the recorded runs of an experiment with another's, at equal tokens, equal FLOPs and equal
time. Prints the difference, its 95% interval, the number of seeds and the p-value of a two-sided
Welch t-test, or that the runs allow no claim.
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.ledger.ledger import LEDGER, load_ledger
from tools.runs import run_summary
from tools.runs.compare_runs import Comparison, Reading, amount, compare, sentence


def claims(root: Path, name: str, against: str) -> list[Comparison]:
    """The comparisons of one experiment's runs with another's.

    Raises:
        ToolError: a name is unknown, a summary is malformed, or there is nothing to compare.
    """
    names = [entry.name for entry in load_ledger(root)]
    if name == against:
        raise ToolError(f"{name}: is no other than itself; name its origin with --against")
    for experiment in (name, against):
        if experiment not in names:
            close = difflib.get_close_matches(experiment, names, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
            raise ToolError(f"{LEDGER}: no experiment is called {experiment!r}; {remedy}")
    runs, faults = run_summary.load_all(root)
    if faults:
        raise ToolError("\n".join(faults))
    sides = [[run for run in runs if run.variant == experiment] for experiment in (name, against)]
    for experiment, own in zip((name, against), sides, strict=True):
        if not own:
            remedy = "./pants run tools/runs:record -- RUN_DIR"
            raise ToolError(f"{run_summary.RUNS}: has no run of {experiment}; record one: {remedy}")
    comparisons = compare(*sides)
    if not comparisons:
        raise ToolError(
            f"{run_summary.RUNS}: {name} and {against} have no runs on the same data; run one of "
            "them on the other's token store"
        )
    return comparisons


def render(comparison: Comparison) -> str:
    """The claims of one comparison as text."""
    ours, theirs = comparison.variant, comparison.origin
    lines = [
        f"{ours.variant} ({', '.join(run.run for run in ours.runs)}) against "
        f"{theirs.variant} ({', '.join(run.run for run in theirs.runs)})"
    ]
    if comparison.differs:
        lines.append(f"  settings that differ: {', '.join(comparison.differs)}")
    for axis, reading in comparison.readings.items():
        spent = f" ({amount(axis, reading.spent)})" if isinstance(reading, Reading) else ""
        lines.append(f"  equal {axis}{spent}: {sentence(reading, ours.variant, theirs.variant)}")
        if isinstance(reading, Reading):
            lines += [f"    {note}" for note in reading.notes]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="claim", description="Say what the recorded runs of an experiment allow you to claim."
    )
    parser.add_argument("name", metavar="NAME", help="experiment to make claims about")
    parser.add_argument(
        "--against", required=True, metavar="ORIGIN", help="experiment to compare it with"
    )
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    comparisons = claims(options.root, options.name, options.against)
    print("\n".join(map(render, comparisons)), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
