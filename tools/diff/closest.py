"""Which of several trees a variant is nearest to, for one whose origin nobody recorded.

    python -m tools.diff.closest NEW CANDIDATE... [--git-dir DIR]

Prints {"schema_version", "closest", "candidates": [{"name", "added", "deleted"}, ...]}, the fewest
changed lines first. NEW and CANDIDATE are directories or REF:PATH.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tools.diff.compare import MAX_STEPS, own_name_undone
from tools.diff.errors import DiffError
from tools.diff.histogram import Budget, Counts, matches
from tools.diff.sources import Source, read
from tools.diff.text import split

SCHEMA_VERSION = 1


def changed_lines(old: Source, new: Source) -> Counts:
    """Lines added and deleted over all paths; binary files count as their bytes' lines."""
    total = Counts(0, 0)
    budget = Budget(MAX_STEPS)
    for path in sorted({*old.tree, *new.tree}):
        a = old.tree[path].content if path in old.tree else b""
        b = own_name_undone(new.tree[path], old.name, new.name) if path in new.tree else b""
        if a != b:
            before, after = split(a), split(b)
            same = sum(match.size for match in matches(before, after, budget))
            total += Counts(len(after) - same, len(before) - same)
    return total


def closest(new: Source, candidates: Sequence[tuple[str, Source]]) -> list[tuple[str, Counts]]:
    """Candidates by how few lines separate them, then by what they are called."""
    found = [(called, changed_lines(old, new)) for called, old in candidates]
    return sorted(found, key=lambda item: (item[1].added + item[1].deleted, item[0]))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="closest", description="The candidate nearest to NEW.")
    parser.add_argument("new")
    parser.add_argument("candidates", nargs="+", metavar="candidate")
    parser.add_argument("--git-dir")
    options = parser.parse_args(arguments)
    try:
        new = read(options.new, options.git_dir)
        candidates = [(given, read(given, options.git_dir)) for given in options.candidates]
    except DiffError as error:
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
    print(json.dumps(answer, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
