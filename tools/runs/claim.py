"""python -m tools.runs.claim NAME --against ORIGIN --root DIR

What the recorded runs of an experiment allow to be said against another's, at equal tokens, equal
FLOPs and equal time: the difference, its 95% interval, the number of seeds, the p-value of a
two-sided Welch t-test; or that they allow nothing.
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.ledger.ledger import LEDGER, load_ledger
from tools.runs import run_summary
from tools.runs.compare_runs import Comparison, Reading, amount, compare, sentence


def claims(root: Path, name: str, against: str) -> list[Comparison]:
    """Raises ToolError: an unknown name, a malformed summary, or nothing to compare."""
    names = [entry.name for entry in load_ledger(root)]
    if name == against:
        raise ToolError(f"{name}: is no other than itself; name its origin with --against")
    for asked in (name, against):
        if asked not in names:
            near = difflib.get_close_matches(asked, names, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise ToolError(f"{LEDGER}: no experiment is called {asked!r}; {remedy}")
    runs, faults = run_summary.load_all(root)
    if faults:
        raise ToolError("\n".join(faults))
    both = [[run for run in runs if run.variant == asked] for asked in (name, against)]
    for asked, own in zip((name, against), both, strict=True):
        if not own:
            remedy = "./pants run tools/runs:record -- RUN_DIR"
            raise ToolError(f"{run_summary.RUNS}: has no run of {asked}; record one: {remedy}")
    found = compare(*both)
    if not found:
        raise ToolError(
            f"{run_summary.RUNS}: {name} and {against} have no runs on the same data; run one of "
            "them on the other's token store"
        )
    return found


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
        at = f" ({amount(axis, reading.at)})" if isinstance(reading, Reading) else ""
        lines.append(f"  equal {axis}{at}: {sentence(reading, ours.variant, theirs.variant)}")
        if isinstance(reading, Reading):
            lines += [f"    {note}" for note in reading.notes]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="claim", description="Say what the recorded runs of an experiment allow to claim."
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--against", required=True, metavar="ORIGIN")
    parser.add_argument("--root", type=Path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    found = claims(options.root, options.name, options.against)
    print("\n".join(map(render, found)), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
