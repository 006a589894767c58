"""Finds the tree nearest to a variant whose origin is not recorded.

    python -m tools.diff.closest NEW CANDIDATE... [--git-dir DIR]

Prints {"schema_version", "closest", "candidates": [{"name", "added", "deleted"}, ...]}, with the
fewest changed lines first. NEW and CANDIDATE are directories or REF:PATH.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.common.errors import ToolError
from tools.common.jsonio import json_text
from tools.common.paths import local_text
from tools.diff.changed_lines import changed_lines
from tools.diff.histogram import Counts
from tools.diff.read_trees import Source, read

SCHEMA_VERSION = 1


def closest(new: Source, candidates: Sequence[tuple[str, Source]]) -> list[tuple[str, Counts]]:
    """Candidates with the lines that separate them from `new`: fewest first, then by name."""

    def content(source: Source) -> dict[str, bytes]:
        return {path: file.content for path, file in source.tree.items()}

    distances = [
        (name, changed_lines(content(old), content(new), (old.name, new.name)))
        for name, old in candidates
    ]
    return sorted(distances, key=lambda item: (item[1].added + item[1].deleted, item[0]))


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="closest", description="Find the candidate with the fewest changed lines."
    )
    parser.add_argument("new", type=local_text, help="variant: a directory, or REF:PATH")
    parser.add_argument(
        "candidates",
        nargs="+",
        type=local_text,
        metavar="candidate",
        help="possible origins, written likewise",
    )
    parser.add_argument(
        "--git-dir", type=local_text, help="git directory in which to look up REF:PATH"
    )
    options = parser.parse_args(arguments)
    try:
        new = read(options.new, options.git_dir)
        candidates = [(name, read(name, options.git_dir)) for name in options.candidates]
    except ToolError as error:
        print(f"closest: {error}", file=sys.stderr)
        return 1
    ranked = closest(new, candidates)
    answer = {
        "schema_version": SCHEMA_VERSION,
        "closest": ranked[0][0],
        "candidates": [
            {"name": candidate, "added": counts.added, "deleted": counts.deleted}
            for candidate, counts in ranked
        ],
    }
    print(json_text(answer), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
