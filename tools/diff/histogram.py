"""Line diff by the histogram algorithm, with the counts of `git diff --histogram`.

The region between two files is split at the longest run of equal lines whose rarest line is the
rarest found, and both sides go on by themselves: rare lines (names of functions) anchor the diff,
common ones (braces, blank lines) do not. JGit's HistogramDiff introduced it; git's xhistogram.c is
the behaviour followed here (https://git-scm.com/docs/git-diff#_options, --diff-algorithm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
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


def matches(old: Sequence[str | bytes], new: Sequence[str | bytes]) -> list[Match]:
    """The runs of lines that both share, in order; what lies between them was changed."""
    number: dict[str | bytes, int] = {}
    a = [number.setdefault(line, len(number)) for line in old]
    b = [number.setdefault(line, len(number)) for line in new]
    found: list[Match] = []
    regions = [(0, len(a), 0, len(b))]
    while regions:
        a_low, a_high, b_low, b_high = regions.pop()
        if a_low == a_high or b_low == b_high:
            continue
        anchor, only_common = _anchor(a, a_low, a_high, b, b_low, b_high)
        if only_common:
            found += _without_anchor(a, a_low, a_high, b, b_low, b_high)
        elif anchor:
            found.append(anchor)
            regions.append((a_low, anchor.i, b_low, anchor.j))
            regions.append((anchor.i + anchor.size, a_high, anchor.j + anchor.size, b_high))
    return sorted(found)


def count(old: Sequence[str | bytes], new: Sequence[str | bytes]) -> Counts:
    """How many lines were added and deleted, as `git diff --histogram --numstat` counts them."""
    same = sum(match.size for match in matches(old, new))
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
    a: list[int], a_low: int, a_high: int, b: list[int], b_low: int, b_high: int
) -> list[Match]:
    """Where every shared line is too common to anchor anything: the longest runs, as difflib."""
    matcher = SequenceMatcher(None, a[a_low:a_high], b[b_low:b_high], autojunk=False)
    blocks = matcher.get_matching_blocks()
    return [Match(a_low + m.a, b_low + m.b, m.size) for m in blocks if m.size]
