"""python -m tools.ledger.sizes TREE

Prints the kept size of a tree as one JSON object, or {"error": why there is none}.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.ledger import kept_sizes


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="sizes", description="Print the kept size of a variant.")
    parser.add_argument("tree", help="git's id of the variant's directory")
    print(json.dumps(kept_sizes.load(Path(), parser.parse_args(arguments).tree), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
