"""Random programs, run before and after an edit: what runs differently is never 0 substantive."""

import os
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.diff.programs import Writer, edited, outcome, render, reworded
from tools.common.files import File
from tools.diff.compare_trees import compare
from tools.diff.read_trees import Source

# More by a person: GRUG_DIFF_PROGRAMS=20000.
EXAMPLES = int(os.environ.get("GRUG_DIFF_PROGRAMS", "400"))


def compared(old, new):
    before, after = (Source("", {"a.py": File(text.encode())}) for text in (old, new))
    return compare(before, after)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_a_program_that_runs_differently_is_never_0_substantive(seed):
    program = Writer(seed, risky=True).program()
    old, new = render(program), edited(program, random.Random(seed))
    try:
        before, after = outcome(old), outcome(new)
    except SyntaxError:
        return
    if before != after:
        counts = compared(old, new).substantive
        assert counts.added + counts.deleted > 0
        # The lines themselves are: not only because a file without any is doubted.
        counts = compared(f"{old}last = 1\n", f"{new}last = 2\n").substantive
        assert counts.added + counts.deleted > 2


def test_the_edits_do_change_what_programs_do():
    """Else the test above would test nothing."""
    differs = Counter()
    for seed in range(200):
        program = Writer(seed, risky=True).program()
        try:
            pair = outcome(render(program)), outcome(edited(program, random.Random(seed)))
            differs[pair[0] != pair[1]] += 1
        except SyntaxError:
            differs["broken"] += 1
    assert differs[True] > 100 and differs["broken"] < 20, differs


def test_new_names_and_another_layout_are_mostly_0():
    """The tool stays of use: at least 95 of 100 such pairs have no substantive line."""
    explained = 0
    for seed in range(100):
        program = Writer(seed, risky=False).program()
        old, new = render(program), reworded(program, random.Random(seed))
        assert outcome(old) == outcome(new)
        counts = compared(old, new).substantive
        explained += counts.added == counts.deleted == 0
    assert explained >= 95, explained
