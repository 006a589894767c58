"""python -m tools.runs check --root DIR [--git-dir DIR]

Checks the ledger. Prints one line per fault and exits with 1, or the number of entries and exits
with 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.common.errors import exit_with
from tools.common.paths import local_path
from tools.ledger.ledger import LEDGER, load_ledger
from tools.runs import check_ledger


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="runs", description="Check what is recorded of experiments."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check_parser = commands.add_parser(
        "check", help="check the ledger, the run summaries and the kept sources"
    )
    check_parser.add_argument(
        "--root", type=local_path, default=Path("."), help="root of the workspace"
    )
    check_parser.add_argument(
        "--git-dir", type=local_path, help="git directory of the workspace, if it is elsewhere"
    )
    options = parser.parse_args(arguments)
    if faults := check_ledger.check(options.root, options.git_dir):
        print("\n".join(faults), file=sys.stderr)
        return 1
    print(f"{LEDGER}: {len(load_ledger(options.root))} entries hold")
    return 0


if __name__ == "__main__":
    exit_with(main)
