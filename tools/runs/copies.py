"""Which recorded runs are one run, recorded several times: copied, shifted, scaled or blurred.

A seed decides the weights and the order of the batches. What a training curve has besides its trend
is the noise of its batches: runs of one seed share it, even runs of different models, and runs of
different seeds do not. No two runs take equal times. Uses the standard library alone, because lint
runs it on speedruns.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

Points = Sequence[Sequence[float]]
"""Rows of (step, tokens, seconds, loss, ...)."""
Pair = tuple[int, int]
"""Two runs by their numbers, the earlier one first."""

_SECONDS, _LOSS = 2, 3
_FEWEST = 30
"""Points of noise below which its likeness shows nothing."""
_FIRST = 8
"""Of the runs that have one value in common, so many are compared with a later one."""


@dataclass(frozen=True)
class Seen:
    """What is known of a run. What is empty is unknown."""

    name: str
    seed: int
    curve: Points
    heldout: Points = ()
    data: str = ""
    """What it read: text, rows and their length."""
    model: tuple[str, str] | None = None
    """The settings of what it trained, and its FLOPs."""


class Copy(NamedTuple):
    """Of which run another is a copy, what shows it (`curve` or `heldout`), and that in words."""

    original: str
    key: str
    words: str


def copies(runs: Iterable[Seen]) -> dict[str, Copy]:
    """The runs that are another one, by the name of the copy.

    Runs of one seed may have equal losses where their sources compute the same: a run is the same
    bit for bit when it is repeated, or in a copy that nobody changed. But not where they read other
    text or trained another model.
    """
    runs = list(runs)
    found: dict[str, Copy] = {}

    def note(first: int, second: int, words: str, key: str = "curve") -> None:
        found.setdefault(runs[second].name, Copy(runs[first].name, key, words))

    equal = {
        "the losses of {}": _equal([_column(run.curve, _LOSS) for run in runs]),
        "the losses of {} but for a constant": _equal([_changes(run.curve) for run in runs]),
        "held-out losses of {}": _evaluated(runs),
    }
    for words, pairs in equal.items():
        for i, j in pairs:
            if reason := _why(runs[i], runs[j]):
                key = "heldout" if words.startswith("held-out") else "curve"
                note(i, j, f"has {words.format(runs[i].name)}, {reason}", key)
    for i, j in _alike(runs):
        note(i, j, f"has the noise of {runs[i].name}'s losses, whose seed is another")
    for i, j in _equal([_column(run.curve, _SECONDS) for run in runs]):
        note(i, j, f"has the times of {runs[i].name}, which no two runs share")
    return found


def _why(original: Seen, copy: Seen) -> str:
    """Why two runs cannot both have been made with the same losses; empty if they can."""
    if original.seed != copy.seed:
        return "whose seed is another"
    if original.data and copy.data and original.data != copy.data:
        return "which read other data"
    # Settings alone may say how to compute the same, and FLOPs alone may be counted otherwise.
    ours, theirs = copy.model, original.model
    if ours and theirs and all(a != b for a, b in zip(ours, theirs, strict=True)):
        return "whose model is another"
    return ""


Values = Sequence[tuple[Hashable, float]]
"""A run's values, each with its place."""


def _column(points: Points, column: int) -> Values:
    return [(i, point[column]) for i, point in enumerate(points)]


def _changes(points: Points) -> Values:
    """From each point to the next; equal for curves that a constant was added to."""
    return [
        ((a[0], b[0]), round(b[_LOSS] - a[_LOSS], 5)) for a, b in pairwise(points)
    ]  # as many digits as are recorded of a loss below ten


def _equal(values: Sequence[Values]) -> Iterator[Pair]:
    """Pairs of runs that have half of the shorter one's values in common, and two at least."""
    for pair, places in _common(values):
        half = -(-min(len(values[n]) for n in pair) // 2)
        if len(places) >= max(2, half):
            yield pair


def _common(values: Sequence[Values]) -> Iterator[tuple[Pair, list[int]]]:
    """Pairs of runs with the places, by number in the later one, at which they are equal.

    Takes time in proportion to the number of values: of those that many runs have, it pairs a few.
    """
    holders: defaultdict[tuple[Hashable, float], list[int]] = defaultdict(list)
    for number, own in enumerate(values):
        shared: defaultdict[int, list[int]] = defaultdict(list)
        for place, value in enumerate(own):
            others = holders[value]
            for other in others:
                shared[other].append(place)
            if len(others) < _FIRST:
                others.append(number)
        for other, places in sorted(shared.items()):
            yield (other, number), places


def _evaluated(runs: Sequence[Seen]) -> Iterator[Pair]:
    """Pairs with three equal evaluations in a row, maybe but for a constant; or two of two."""
    exact = [[(point[0], point[_LOSS]) for point in run.heldout] for run in runs]
    for pair, places in _common(exact):
        if _in_a_row(places) >= max(2, min(3, *(len(exact[n]) for n in pair))):
            yield pair
    for pair, places in _common([_changes(run.heldout) for run in runs]):
        if _in_a_row(places) >= 3:
            yield pair


def _in_a_row(places: Sequence[int]) -> int:
    """The length of the longest run of consecutive numbers."""
    longest = length = 1
    for a, b in pairwise(places):
        length = length + 1 if b == a + 1 else 1
        longest = max(longest, length)
    return longest


def _alike(runs: Sequence[Seen]) -> Iterator[Pair]:
    """Pairs of runs of different seeds with the same noise, point by point.

    Noise is how far a point lies off the middle of its neighbours: a curve that was shifted,
    scaled, bent or blurred a little has the noise of the original. Whether most of it lies to the
    same side is looked at first, because that is quick.
    """
    noises = [_noise(run.curve) for run in runs]
    sides = [sum(1 << i for i, value in enumerate(noise) if value > 0) for noise in noises]
    usable = [
        n for n, noise in enumerate(noises) if len(noise) >= _FEWEST and _is_noise(sides[n], noise)
    ]
    for at, second in enumerate(usable):
        for first in usable[:at]:
            if runs[first].seed == runs[second].seed:
                continue
            size = min(len(noises[first]), len(noises[second]))
            differing = ((sides[first] ^ sides[second]) & ((1 << size) - 1)).bit_count()
            if differing > size / 2 - 1.75 * math.sqrt(size):
                continue
            likeness = _rank_correlation(noises[first][:size], noises[second][:size])
            # Each value shares points with its neighbours: half of them count as independent.
            if likeness > math.tanh(6 / math.sqrt(size / 2 - 3)):
                yield first, second


def _noise(points: Points) -> list[float]:
    losses = [point[_LOSS] for point in points]
    return [b - (a + c) / 2 for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]


def _is_noise(sides: int, noise: Sequence[float]) -> bool:
    """Whether it changes sides as noise does, three times of four, rather than as a trend bends."""
    length = len(noise) - 1
    changes = ((sides ^ (sides >> 1)) & ((1 << length) - 1)).bit_count()
    return changes > 0.73 * length - 1.25 * math.sqrt(length)


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: a few points far off, such as the fall at the start, weigh no more than others.

    Zero if either is constant.
    """
    try:
        return statistics.correlation(first, second, method="ranked")
    except statistics.StatisticsError:
        return 0.0
