"""python -m tools.runs.claim NAME [--against ORIGIN] --root DIR

Compares the recorded runs of an experiment with its origin's, or another's, at equal tokens, equal
FLOPs and equal time. Prints the difference, its 95% interval, the number of seeds, the p-value of a
two-sided t-test and its q-value in the ledger, or why the runs allow no claim.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.ledger.ledger import Entry, load_ledger
from tools.runs import ledger_claims, origins, run_summary
from tools.runs.compare_runs import (
    Comparison,
    Group,
    Reading,
    Refusal,
    amount,
    outcomes,
    sentence,
)
from tools.runs.origins import Origin
from tools.runs.run_summary import Run


def claims(root: Path, name: str, against: str = "") -> list[Comparison | Refusal]:
    """The comparisons of one experiment's runs with another's, and the reasons where there is none.

    One with an origin that a person names is none of the ledger's claims, and has no q-value.

    Args:
        root: the workspace.
        name: the experiment.
        against: the other: ORIGIN, ORIGIN@RUN or ORIGIN@COMMIT; by default the state of its origin
            that its summaries pin.

    Raises:
        ToolError: a name is unknown, a summary is malformed, or there is nothing to compare.
    """
    entries = load_ledger(root)
    entry = origins.known(name, entries)
    runs, faults = run_summary.load_all(root)
    if faults:
        raise ToolError("\n".join(faults))
    named = _named(root, entry, against, runs, entries)
    if not any(run.variant == name for run in runs):
        remedy = "./pants run tools/runs:record -- RUN_DIR"
        raise ToolError(f"{run_summary.RUNS}: has no run of {name}; record one: {remedy}")
    if named:
        own = [run for run in runs if run.variant == name]
        return outcomes(own, runs, named)
    return ledger_claims.of_ledger(entries, runs)[name]


def _named(
    root: Path, entry: Entry, against: str, runs: list[Run], entries: list[Entry]
) -> Origin | None:
    """The origin that a person names; None for the pinned one."""
    if against == entry.name:
        raise ToolError(f"{entry.name}: is no other than itself; name its origin with --against")
    if not against and entry.origin == "none":
        raise ToolError(f"{entry.name}: has no origin; name another with --against NAME")
    if against in ("", entry.origin):
        return None
    return origins.named(root, against, runs, entries)


def render(found: Comparison | Refusal) -> str:
    """The claims of one comparison as text."""
    if isinstance(found, Refusal):
        repeated = "".join(f"\n  {words}" for words in found.variant.repeated)
        return f"{_side(found.variant)}{repeated}\n  {found}\n"
    ours, theirs = found.variant, found.origin
    why = "as it was asked for" if found.is_asked else _BY[found.pin["by"]]
    lines = [
        _side(ours),
        f"  against {_side(theirs)}",
        f"  which is {origins.label(found.pin)}, {why}",
    ]
    if found.is_asked:
        lines.append(
            "  no q-value: only the ledger's own claims have one, and this is none of them"
        )
    if found.differs:
        lines.append(f"  settings that differ: {'; '.join(found.differs)}")
    for axis, reading in found.readings.items():
        spent = f" ({amount(axis, reading.spent)})" if isinstance(reading, Reading) else ""
        q = found.q if axis == "tokens" else None
        claim = sentence(reading, ours.variant, theirs.variant, q)
        lines.append(f"  equal {axis}{spent}: {claim}")
        if isinstance(reading, Reading):
            lines += [f"    {note}" for note in reading.notes]
    return "\n".join(lines) + "\n"


_BY = {
    "forked at": "from which it was copied",
    "synced": "with which it was synced last",
    "named": "as the summaries say",
}


def _side(group: Group) -> str:
    runs = ", ".join(run.run for run in group.runs)
    return f"{group.variant} ({runs}; sources {origins.short(group.sources_digest)})"


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="claim", description="Say what the recorded runs of an experiment allow you to claim."
    )
    parser.add_argument("name", metavar="NAME", help="experiment to make claims about")
    parser.add_argument(
        "--against",
        metavar="ORIGIN",
        help="experiment to compare it with, or one state of it: ORIGIN@RUN or ORIGIN@COMMIT "
        "(default: its origin as it was copied or synced last)",
    )
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    options = parser.parse_args(arguments)
    found = claims(options.root, options.name, origins.asked(options.against))
    print("\n".join(map(render, found)), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
