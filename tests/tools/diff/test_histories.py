"""Versions of files that people wrote: what is 0 substantive compiles to the same program.

A sample runs everywhere. All of a repository, or two directories of packages, are for a person:

    GRUG_DIFF_HISTORY=. GRUG_DIFF_PACKAGES=OLD:NEW pytest tests/tools/diff/test_histories.py -s
"""

import os
from pathlib import Path

import pytest

from tests.tools.diff import histories
from tools.common.files import File
from tools.diff.compare_trees import compare
from tools.diff.read_trees import Source


def prove(pairs):
    """Asserts that pairs without substantive lines are one program; returns what was counted."""
    counts = {"pairs": 0, "lines": 0, "substantive": 0, "pairs with 0": 0}
    for name, old, new in pairs:
        before, after = (Source("", {"a.py": File(content)}) for content in (old, new))
        result = compare(before, after)
        substantive = result.substantive.added + result.substantive.deleted
        counts["pairs"] += 1
        counts["lines"] += result.counts.added + result.counts.deleted
        counts["substantive"] += substantive
        if substantive == 0:
            counts["pairs with 0"] += 1
            assert histories.program(old) == histories.program(new), name
    print(counts)
    return counts


def test_a_sample_of_the_history():
    counts = prove(histories.sample())
    assert counts["pairs"] >= 30 and counts["pairs with 0"] >= 15


@pytest.mark.skipif("GRUG_DIFF_HISTORY" not in os.environ, reason="set GRUG_DIFF_HISTORY=DIRECTORY")
def test_a_whole_history():
    assert prove(histories.of_repository(Path(os.environ["GRUG_DIFF_HISTORY"])))["pairs"]


@pytest.mark.skipif("GRUG_DIFF_PACKAGES" not in os.environ, reason="set GRUG_DIFF_PACKAGES=OLD:NEW")
def test_packages_in_two_versions():
    old, _, new = os.environ["GRUG_DIFF_PACKAGES"].partition(":")
    assert prove(histories.of_packages(Path(old), Path(new)))["pairs"]


OLD = "def f(x, y):\n    alpha = x + y\n    def g(z):\n        return alpha * z\n    return g\n"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("alpha", "zeta", True),
        ("z", "w", False),  # a parameter's name
        ("x + y", "y + x", False),
        ("alpha * z", "alpha  *  z  # why", True),
        ("return alpha * z", "alpha = 2\n        return alpha * z", False),
    ],
)
def test_programs_are_told_apart(before, after, same):
    new = OLD.replace(before, after)
    assert new != OLD
    assert (histories.program(OLD.encode()) == histories.program(new.encode())) == same
