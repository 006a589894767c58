"""python -m tools.common.checkout ROOT PATH...

Prints {"commit": DIGEST, "dirty": whether one of the paths, from ROOT, differs from it}; {} if ROOT
is in no repository, or git will not speak of it: then the reason goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text
from tools.common.repository import Repository


def state(root: Path, paths: list[str]) -> dict[str, str | bool]:
    """The commit that is checked out, and whether the paths differ from it.

    Raises:
        ToolError: `root` is in no repository that can be used.
    """
    repo = Repository(root)
    return {"commit": repo.ask("rev-parse", "HEAD").strip(), "dirty": bool(repo.dirty(*paths))}


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="checkout",
        description="Print the commit that is checked out, and whether paths differ.",
    )
    parser.add_argument("root", type=local_path, help="root of the workspace")
    parser.add_argument(
        "paths", nargs="*", type=local_text, help="paths to compare with the commit"
    )
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(state(options.root, options.paths), sort_keys=True))
    except ToolError as error:
        print("{}")
        print(error, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
