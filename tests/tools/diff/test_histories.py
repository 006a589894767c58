"""Versions of files that people wrote: what is 0 substantive compiles to the same program.

A sample runs everywhere. .ci/run proves all of this repository's history, and
tests/slow/older_jax/test_base.py both versions of JAX in the locks. For others:

    GRUG_DIFF_HISTORY=. GRUG_DIFF_PACKAGES=OLD:NEW pytest tests/tools/diff/test_histories.py -s
"""

import os
from pathlib import Path

import pytest

from tests.tools.diff import histories
from tests.tools.diff.histories import prove


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
