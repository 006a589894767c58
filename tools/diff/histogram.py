"""Line diff by the histogram algorithm, with the counts of `git diff --histogram`.

A region of two files is split at a run of equal lines: the one whose rarest line is the rarest of
all, and of several the longest. Both halves are treated likewise. So rare lines (names of
functions) anchor the diff, and common ones (braces, blank lines) do not. JGit's HistogramDiff
introduced the algorithm; this follows git's xhistogram.c
(https://git-scm.com/docs/git-diff#_options, --diff-algorithm).
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
# Regions that rare lines do not split are searched for the fewest edits, up to so many. git stops
# looking for the fewest at 256.
MAX_EDITS = 256


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
    """A limit on work, in steps of the inner loops, roughly; None sets no limit.

    What is spent is added to the `total`, which sets no limit of its own.
    """

    def __init__(self, steps: int | None = None, total: Budget | None = None) -> None:
        self.steps = steps
        self.total = total
        self.spent = 0
        self.refused = 0

    def alike(self) -> Budget:
        """Another budget of the same size, of which this one keeps the account."""
        return Budget(self.steps, self)

    def take(self, steps: int) -> bool:
        """Spends so many steps if they are left, and returns whether they were."""
        refused = self.steps is not None and self.spent + steps > self.steps
        for budget in (self, self.total) if self.total else (self,):
            budget.refused += refused
            budget.spent += 0 if refused else steps
        return not refused


def matches(
    old: Sequence[str | bytes], new: Sequence[str | bytes], budget: Budget | None = None
) -> list[Match]:
    """The runs of equal lines, in order; the lines between them were changed.

    Without a budget this gives git's answer, however long it takes. With one, a region that would
    cost more than is left matches only the equal lines at its beginning and end.
    """
    budget = budget or Budget()
    number: dict[str | bytes, int] = {}
    a = [number.setdefault(line, len(number)) for line in old]
    b = [number.setdefault(line, len(number)) for line in new]
    result: list[Match] = []
    regions = [(0, len(a), 0, len(b))]
    while regions:
        a_low, a_high, b_low, b_high = regions.pop()
        if a_low == a_high or b_low == b_high:
            continue
        if not budget.take(a_high - a_low + b_high - b_low):
            rest = few_edits(a[a_low:a_high], b[b_low:b_high])
            if rest is None:
                result += _ends(a, a_low, a_high, b, b_low, b_high)
            else:
                result += [Match(a_low + i, b_low + j, size) for i, j, size in rest]
            continue
        anchor, only_common = _anchor(a, a_low, a_high, b, b_low, b_high)
        if only_common:
            result += _without_anchor(a, a_low, a_high, b, b_low, b_high, budget)
        elif anchor:
            result.append(anchor)
            regions.append((a_low, anchor.i, b_low, anchor.j))
            regions.append((anchor.i + anchor.size, a_high, anchor.j + anchor.size, b_high))
    return sorted(result)


def count(
    old: Sequence[str | bytes], new: Sequence[str | bytes], budget: Budget | None = None
) -> Counts:
    """The number of lines added and deleted, as `git diff --histogram --numstat` counts them."""
    unchanged = sum(match.size for match in matches(old, new, budget))
    return Counts(len(new) - unchanged, len(old) - unchanged)


def _anchor(
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int
) -> tuple[Match | None, bool]:
    """The best run of equal lines in a region, and whether all shared lines are too common."""
    places: dict[int, list[int]] = {}
    for i in range(a_low, a_high):
        places.setdefault(a[i], []).append(i)
    best: Match | None = None
    rarest = MAX_OCCURRENCES + 1
    shared = False
    j = b_low
    while j < b_high:
        following = j + 1
        occurring = places.get(b[j], ())
        shared = shared or bool(occurring)
        if occurring and len(occurring) <= rarest:
            end = a_low
            for i in occurring:
                if i < end:
                    continue  # inside the previous run
                low, b_first, occurrences = i, j, len(occurring)
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
    """Matches in a region whose shared lines are all too common.

    They leave the fewest lines, as git's do, if few are left; else they are the longest runs, as
    difflib finds them. The loop is that of SequenceMatcher.get_matching_blocks, with a budget.
    """
    old, new = a[a_low:a_high], b[b_low:b_high]
    fewest = few_edits(old, new)
    if fewest is not None:
        return [Match(a_low + i, b_low + j, size) for i, j, size in fewest]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    occurrences = Counter(new)
    cost = list(accumulate((occurrences[line] for line in old), initial=0))
    result = []
    regions = [(0, len(old), 0, len(new))]
    while regions:
        i, i_end, j, j_end = regions.pop()
        if not budget.take(cost[i_end] - cost[i]):
            result += _ends(a, a_low + i, a_low + i_end, b, b_low + j, b_low + j_end)
            continue
        block = matcher.find_longest_match(i, i_end, j, j_end)
        if not block.size:
            continue
        result.append(Match(a_low + block.a, b_low + block.b, block.size))
        if i < block.a and j < block.b:
            regions.append((i, block.a, j, block.b))
        if block.a + block.size < i_end and block.b + block.size < j_end:
            regions.append((block.a + block.size, i_end, block.b + block.size, j_end))
    return result


def few_edits(old: Sequence[int], new: Sequence[int]) -> list[Match] | None:
    """The matches that leave the fewest lines on both sides; None if more than MAX_EDITS are left.

    This is the greedy algorithm of E. Myers, "An O(ND) difference algorithm and its variations"
    (1986). It takes as many steps as there are lines, and at most MAX_EDITS squared more.
    """
    furthest = {1: 0}  # by diagonal: the furthest old line that the edits so far reach
    history = []
    for edits in range(MAX_EDITS + 1):
        history.append(dict(furthest))
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (
                diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1]
            )
            i = furthest[diagonal + 1] if down else furthest[diagonal - 1] + 1
            j = i - diagonal
            while i < len(old) and j < len(new) and old[i] == new[j]:
                i, j = i + 1, j + 1
            furthest[diagonal] = i
            if i >= len(old) and j >= len(new):
                return _traced(history, len(old), len(new))
    return None


def _traced(history: Sequence[dict[int, int]], i: int, j: int) -> list[Match]:
    """The runs of equal lines on the way back from the ends of both sides."""
    result = []
    for edits in range(len(history) - 1, -1, -1):
        furthest, diagonal = history[edits], i - j
        down = diagonal == -edits or (
            diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1]
        )
        before = furthest[diagonal + 1] if down else furthest[diagonal - 1]
        after = before if down else before + 1
        if edits == 0:
            after = 0
        if i > after:
            result.append(Match(after, j - (i - after), i - after))
        i, j = before, before - (diagonal + 1 if down else diagonal - 1)
    return result[::-1]


def _ends(
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int
) -> list[Match]:
    """The equal lines at the beginning and at the end of a region."""
    room = min(a_high - a_low, b_high - b_low)
    head = next((n for n in range(room) if a[a_low + n] != b[b_low + n]), room)
    room -= head
    tail = next((n for n in range(room) if a[a_high - 1 - n] != b[b_high - 1 - n]), room)
    runs = [Match(a_low, b_low, head), Match(a_high - tail, b_high - tail, tail)]
    return [match for match in runs if match.size]
