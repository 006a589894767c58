"""python -m tools.site.dates --root DIR

Prints the day on which each experiment of the ledger came, {"NAME": "2026-11-29"}: of the commit
that introduced it, else of the one from which it was copied. What git does not know is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.common.errors import exit_with
from tools.common.git import Git
from tools.common.jsonio import json_text
from tools.common.paths import local_path
from tools.ledger import pins
from tools.ledger.ledger import Entry, load_ledger


def dates(root: Path) -> dict[str, str]:
    """The day by the experiment's name. Raises ToolError for a bad ledger."""
    git = Git(root)
    commits = {entry.name: _commits(entry) for entry in load_ledger(root)}
    known = git.known_commits({commit for found in commits.values() for commit in found})
    full = sorted(set(known.values()))
    days: dict[str, str] = {}
    if full:
        answer = git.ask("log", "--no-walk=unsorted", "--format=%H %cs", *full)
        days = dict(line.split(" ", 1) for line in answer.splitlines())
    result = {}
    for name, found in commits.items():
        day = next((days[known[c]] for c in found if c in known and known[c] in days), None)
        if day:
            result[name] = day
    return result


def _commits(entry: Entry) -> list[str]:
    found = (pins.parse(field) for field in (entry.introduced, entry.forked_at))
    return [pin.commit for pin in found if pin and pin.commit]


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="dates", description="Print when experiments came.")
    parser.add_argument("--root", type=local_path, default=Path("."), help="root of the workspace")
    print(json_text(dates(parser.parse_args(arguments).root)), end="")
    return 0


if __name__ == "__main__":
    exit_with(main)
