"""Which of several trees a variant is nearest to, for one whose origin nobody recorded.

    python -m tools.diff.closest NEW CANDIDATE... [--git-dir DIR]

Prints {"schema_version", "closest", "candidates": [{"name", "added", "deleted"}, ...]}, the fewest
changed lines first. NEW and CANDIDATE are directories or REF:PATH.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.common.errors import ToolError
from tools.common.jsonio import json_text
from tools.diff.changed_lines import changed_lines
from tools.diff.histogram import Counts
from tools.diff.read_trees import Source, read

SCHEMA_VERSION = 1


def closest(new: Source, candidates: Sequence[tuple[str, Source]]) -> list[tuple[str, Counts]]:
    """Candidates by how few lines separate them, then by what they are called."""

    def content(source: Source) -> dict[str, bytes]:
        return {path: file.content for path, file in source.tree.items()}

    found = [
        (called, changed_lines(content(old), content(new), (old.name, new.name)))
        for called, old in candidates
    ]
    return sorted(found, key=lambda item: (item[1].added + item[1].deleted, item[0]))


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="closest", description="Find the candidate that is nearest to NEW."
    )
    parser.add_argument("new")
    parser.add_argument("candidates", nargs="+", metavar="candidate")
    parser.add_argument("--git-dir")
    options = parser.parse_args(arguments)
    try:
        new = read(options.new, options.git_dir)
        candidates = [(given, read(given, options.git_dir)) for given in options.candidates]
    except ToolError as error:
        print(f"closest: {error}", file=sys.stderr)
        return 1
    found = closest(new, candidates)
    answer = {
        "schema_version": SCHEMA_VERSION,
        "closest": found[0][0],
        "candidates": [
            {"name": called, "added": counts.added, "deleted": counts.deleted}
            for called, counts in found
        ],
    }
    print(json_text(answer), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
