"""python -m tools.runs check --root DIR [--git-dir DIR]

Whether the ledger is true: prints one line per fault and ends with 1, or says what it saw and ends
with 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.common.errors import exit_with
from tools.ledger.ledger import LEDGER, load_ledger
from tools.runs import check_ledger


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="archive")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="check that the ledger is true")
    checking.add_argument("--root", type=Path, default=Path("."), help="root of the workspace")
    checking.add_argument(
        "--git-dir", type=Path, help="git directory of the workspace, if it lies elsewhere"
    )
    options = parser.parse_args(arguments)
    if faults := check_ledger.check(options.root, options.git_dir):
        print("\n".join(faults), file=sys.stderr)
        return 1
    print(f"{LEDGER}: {len(load_ledger(options.root))} entries hold")
    return 0


if __name__ == "__main__":
    exit_with(main)
