"""Line diff by the histogram algorithm, with the counts of `git diff --histogram`.

The region between two files is split at the longest run of equal lines whose rarest line is the
rarest found, and both sides go on by themselves: rare lines (names of functions) anchor the diff,
common ones (braces, blank lines) do not. JGit's HistogramDiff introduced it; git's xhistogram.c is
the behaviour followed here (https://git-scm.com/docs/git-diff#_options, --diff-algorithm).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate
from typing import NamedTuple

# Lines that occur more often than this anchor nothing: git's limit.
MAX_OCCURRENCES = 64


class Match(NamedTuple):
    """`size` equal lines: `old[i : i + size] == new[j : j + size]`."""

    i: int
    j: int
    size: int


@dataclass(frozen=True)
class Counts:
    """Lines that a change adds and deletes."""

    added: int
    deleted: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.added + other.added, self.deleted + other.deleted)


class Budget:
    """Work that may still be done: steps of the inner loops, roughly. None is without limit."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps
        self.spent = 0
        self.refused = 0

    def take(self, steps: int) -> bool:
        """Whether so many steps are left; they are then spent."""
        if self.steps is not None and self.spent + steps > self.steps:
            self.refused += 1
            return False
        self.spent += steps
        return True


def matches(
    old: Sequence[str | bytes], new: Sequence[str | bytes], budget: Budget | None = None
) -> list[Match]:
    """The runs of lines that both share, in order; what lies between them was changed.

    Without a budget this is what git does, however long it takes. With one, a region that would
    cost more than is left keeps only the lines that it begins and ends with in common.
    """
    budget = budget or Budget()
    number: dict[str | bytes, int] = {}
    a = [number.setdefault(line, len(number)) for line in old]
    b = [number.setdefault(line, len(number)) for line in new]
    found: list[Match] = []
    regions = [(0, len(a), 0, len(b))]
    while regions:
        a_low, a_high, b_low, b_high = regions.pop()
        if a_low == a_high or b_low == b_high:
            continue
        if not budget.take(a_high - a_low + b_high - b_low):
            found += _ends(a, a_low, a_high, b, b_low, b_high)
            continue
        anchor, only_common = _anchor(a, a_low, a_high, b, b_low, b_high)
        if only_common:
            found += _without_anchor(a, a_low, a_high, b, b_low, b_high, budget)
        elif anchor:
            found.append(anchor)
            regions.append((a_low, anchor.i, b_low, anchor.j))
            regions.append((anchor.i + anchor.size, a_high, anchor.j + anchor.size, b_high))
    return sorted(found)


def count(
    old: Sequence[str | bytes], new: Sequence[str | bytes], budget: Budget | None = None
) -> Counts:
    """How many lines were added and deleted, as `git diff --histogram --numstat` counts them."""
    same = sum(match.size for match in matches(old, new, budget))
    return Counts(len(new) - same, len(old) - same)


def _anchor(
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int
) -> tuple[Match | None, bool]:
    """The best run of equal lines in a region, and whether only too common ones are shared."""
    places: dict[int, list[int]] = {}
    for i in range(a_low, a_high):
        places.setdefault(a[i], []).append(i)
    best: Match | None = None
    rarest = MAX_OCCURRENCES + 1
    shared = False
    j = b_low
    while j < b_high:
        following = j + 1
        at = places.get(b[j], ())
        shared = shared or bool(at)
        if at and len(at) <= rarest:
            end = a_low
            for i in at:
                if i < end:
                    continue  # inside the run just looked at
                low, b_first, occurrences = i, j, len(at)
                while low > a_low and b_first > b_low and a[low - 1] == b[b_first - 1]:
                    low, b_first = low - 1, b_first - 1
                    occurrences = min(occurrences, len(places[a[low]]))
                end, b_end = i + 1, j + 1
                while end < a_high and b_end < b_high and a[end] == b[b_end]:
                    occurrences = min(occurrences, len(places[a[end]]))
                    end, b_end = end + 1, b_end + 1
                following = max(following, b_end)
                if best is None or best.size < end - low or occurrences < rarest:
                    best, rarest = Match(low, b_first, end - low), occurrences
        j = following
    return best, shared and rarest > MAX_OCCURRENCES


def _without_anchor(
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int, budget: Budget
) -> list[Match]:
    """Where every shared line is too common to anchor anything: the longest runs, as difflib.

    The loop is that of SequenceMatcher.get_matching_blocks, but for the budget.
    """
    left, right = a[a_low:a_high], b[b_low:b_high]
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    occurrences = Counter(right)
    cost = list(accumulate((occurrences[line] for line in left), initial=0))
    found = []
    regions = [(0, len(left), 0, len(right))]
    while regions:
        i, i_end, j, j_end = regions.pop()
        if not budget.take(cost[i_end] - cost[i]):
            found += _ends(a, a_low + i, a_low + i_end, b, b_low + j, b_low + j_end)
            continue
        at = matcher.find_longest_match(i, i_end, j, j_end)
        if not at.size:
            continue
        found.append(Match(a_low + at.a, b_low + at.b, at.size))
        if i < at.a and j < at.b:
            regions.append((i, at.a, j, at.b))
        if at.a + at.size < i_end and at.b + at.size < j_end:
            regions.append((at.a + at.size, i_end, at.b + at.size, j_end))
    return found


def _ends(
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int
) -> list[Match]:
    """The equal lines that a region begins and ends with."""
    room = min(a_high - a_low, b_high - b_low)
    head = next((n for n in range(room) if a[a_low + n] != b[b_low + n]), room)
    room -= head
    tail = next((n for n in range(room) if a[a_high - 1 - n] != b[b_high - 1 - n]), room)
    found = [Match(a_low, b_low, head), Match(a_high - tail, b_high - tail, tail)]
    return [match for match in found if match.size]
