"""Counts are git's; matches rebuild both sides."""

import itertools
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.diff.histogram import Budget, Counts, count, few_edits, matches


def git_counts(directory: Path, old: list[str], new: list[str]) -> Counts:
    for name, lines in (("old", old), ("new", new)):
        (directory / name).write_text("".join(lines))
    command = "git diff --no-index --histogram --numstat old new".split()
    words = subprocess.run(command, cwd=directory, capture_output=True, text=True).stdout.split()
    return Counts(int(words[0]), int(words[1])) if words else Counts(0, 0)


@st.composite
def edits(draw):
    """Two files of few or many different lines, the second an edit of the first."""
    alphabet = draw(st.sampled_from([2, 5, 30, 200]))
    line = st.integers(0, alphabet).map(lambda n: f"line {n}\n")
    old = draw(st.lists(line, max_size=60))
    new = list(old)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(new)))
        kind = draw(st.sampled_from(["insert", "delete", "move"]))
        if kind == "insert":
            new[at:at] = draw(st.lists(line, min_size=1, max_size=5))
        else:
            block = new[at : at + 5]
            del new[at : at + 5]
            if kind == "move":
                to = draw(st.integers(0, len(new)))
                new[to:to] = block
    return old, new


@settings(max_examples=150, deadline=None)
@given(edits())
def test_counts_are_those_of_git(tmp_path_factory, pair):
    old, new = pair
    assert count(old, new) == git_counts(tmp_path_factory.getbasetemp(), old, new)


@settings(max_examples=200, deadline=None)
@given(edits())
def test_matches_are_equal_lines_in_order(pair):
    old, new = pair
    i = j = 0
    for match in matches(old, new):
        assert match.i >= i and match.j >= j and match.size > 0
        i, j = match.i + match.size, match.j + match.size
        assert old[match.i : i] == new[match.j : j]
    assert i <= len(old) and j <= len(new)


@pytest.mark.parametrize(
    "old, new, counts",
    [
        ([], [], (0, 0)),
        ([], ["a"], (1, 0)),
        (["a"], [], (0, 1)),
        (["a", "b"], ["a", "c"], (1, 1)),
        (["x"] * 200, ["x"] * 150, (0, 50)),  # only lines too common to anchor anything
        ([b"\xff"], [b"\xfe"], (1, 1)),
    ],
)
def test_small_cases(old, new, counts):
    assert count(old, new) == Counts(*counts)


def numbers(n, kinds, seed):
    random.seed(seed)
    return [f"{random.randrange(kinds)},\n" for _ in range(n)]


def function_bodies():
    body = "def f(x):|    y = x|    return y|||class A:|    z = 1||"
    return [f"{line}\n" for line in body.split("|")] * 1800


@pytest.mark.parametrize(
    "old",
    [numbers(16_000, 10, 0), numbers(3_800, 100, 1), numbers(3_800, 3, 2), function_bodies()],
    ids=["digits", "numbers", "three kinds", "functions"],
)
@pytest.mark.parametrize("steps", [None, 8_000_000, 10_000], ids=["no limit", "limit", "spent"])
def test_few_edits_of_a_large_file_count_as_git_counts_them(old, steps, tmp_path):
    new = [*old[:1000], *old[1001:2500], "\n", *old[2500:]]
    assert count(old, new, Budget(steps)) == git_counts(tmp_path, old, new) == Counts(1, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_few_edits_are_the_fewest(old, new):
    """Against the plain table of longest common subsequences."""
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, j in itertools.product(reversed(range(len(old))), reversed(range(len(new)))):
        longest[i][j] = max(longest[i + 1][j], longest[i][j + 1])
        if old[i] == new[j]:
            longest[i][j] = longest[i + 1][j + 1] + 1
    found = few_edits(old, new) or []
    assert sum(match.size for match in found) == longest[0][0]
    i = j = 0
    for match in found:
        assert match.i >= i and match.j >= j
        i, j = match.i + match.size, match.j + match.size
        assert old[match.i : i] == new[match.j : j]


def test_a_rare_line_anchors_where_common_ones_would_not():
    old = ["{", "a", "}", "rare", "{", "b", "}"]
    new = ["{", "}", "rare", "{", "}"]
    pairs = {(m.i + k, m.j + k) for m in matches(old, new) for k in range(m.size)}
    assert (old.index("rare"), new.index("rare")) in pairs
