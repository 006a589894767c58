"""python -m tools.speedrun check --root DIR

Checks that every speedrun has its sources, seeds and hardware, and reached its track's target.
Prints one line per fault and exits with 1, or the number of speedruns and exits with 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.speedrun.entry import entries, load
from tools.speedrun.tracks import AREA, load_tracks


def check(root: Path) -> list[str]:
    """Every fault of the workspace's speedruns, as `path:line: field: message`."""
    names = entries(root)
    if not names:
        return []
    faults: list[str] = []
    tracks = load_tracks(root)
    for name in names:
        try:
            load(root, name, tracks)
        except ToolError as error:
            faults += str(error).splitlines()
    return faults


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="speedrun", description="Check the speedruns' records.")
    commands = parser.add_subparsers(dest="command", required=True)
    check_parser = commands.add_parser(
        "check", help="check that every speedrun's record is complete and true"
    )
    check_parser.add_argument(
        "--root", type=local_path, default=Path("."), help="root of the workspace"
    )
    options = parser.parse_args(arguments)
    if faults := check(options.root):
        print("\n".join(faults), file=sys.stderr)
        return 1
    print(f"{AREA}: {len(entries(options.root))} speedruns hold")
    return 0


if __name__ == "__main__":
    exit_with(main)
