"""python -m tools.common.checkout ROOT PATH...

Prints {"commit": DIGEST, "dirty": whether one of the paths, from ROOT, differs from it}; {} if ROOT
is in no repository, or git will not speak of it: then the reason goes to standard error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.common.errors import ToolError
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
    root, *paths = arguments
    try:
        print(json.dumps(state(Path(root), paths), sort_keys=True))
    except ToolError as error:
        print("{}")
        print(error, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
