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
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

Points = Sequence[Sequence[float]]
"""Rows of (step, tokens, seconds, loss, ...)."""
Pair = tuple[int, int]
"""Two runs by their numbers, the earlier one first."""

_SECONDS, _LOSS = 2, 3
_FEWEST = 28
"""Points of noise below which its likeness shows nothing."""
_LAGS = 2
"""So many points earlier or later a copy is looked for."""
_WIDEST = 41
"""The widest blur that is looked for, in points."""
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
    rate: float | None = None
    """The highest learning rate."""
    experiment: str = ""
    """All that its losses follow from but the seed: sources, settings, data, what is held out."""


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
    for i, j, words in _contradicting(runs):
        note(i, j, words, "heldout")
    return found


def _why(original: Seen, copy: Seen) -> str:
    """Why two runs cannot both have been made with the same losses; empty if they can."""
    if original.seed != copy.seed:
        return "whose seed is another"
    if original.data and copy.data and original.data != copy.data:
        return "which read other data"
    if original.rate and copy.rate and original.rate != copy.rate:
        return "whose learning rate is another"
    # Settings alone may say how to compute the same, and FLOPs alone may be counted otherwise.
    ours, theirs = copy.model, original.model
    if ours and theirs and all(a != b for a, b in zip(ours, theirs, strict=True)):
        return "whose model is another"
    return ""


def _contradicting(runs: Sequence[Seen]) -> Iterator[tuple[int, int, str]]:
    """Pairs of one seed of one experiment whose held-out losses differ, and the others do not.

    A run that is repeated is the same bit for bit; on other devices it drifts away, in what it
    trained on as in what is held out.
    """
    first: dict[tuple[str, int], list[int]] = {}
    for j, run in enumerate(runs):
        earlier = first.setdefault((run.experiment, run.seed), [])
        for i in earlier if run.experiment else ():
            if step := _parted(runs[i], run):
                yield (
                    i,
                    j,
                    (
                        f"has other held-out losses at step {step:g} than {runs[i].name}, the "
                        "same seed of the same experiment with the same curve"
                    ),
                )
                break
        if len(earlier) < _FIRST:
            earlier.append(j)


def _parted(first: Seen, second: Seen) -> float:
    """The first step at which held-out losses differ far more than the curves did by then; or 0."""
    theirs = {point[0]: point[_LOSS] for point in first.heldout}
    known = {point[0]: point[_LOSS] for point in first.curve}
    apart = [(p[0], abs(p[_LOSS] - known[p[0]])) for p in second.curve if p[0] in known]
    for point in second.heldout:
        if point[0] not in theirs or not apart:
            continue
        most = max((by for step, by in apart if step <= point[0]), default=apart[0][1])
        if abs(point[_LOSS] - theirs[point[0]]) > 5 * most + 1e-4 * point[_LOSS]:
            return point[0]
    return 0


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


@dataclass(frozen=True)
class _Noise:
    """How far each point of a curve lies off the middle of its neighbours.

    The first eighth is left out, where all runs fall so steeply that it is trend.
    """

    scores: list[int]
    """The ranks, about zero, so that a few points far off weigh no more than others."""
    sides: int
    """A bit for each score above zero."""
    start: int
    stop: int

    @classmethod
    def of(cls, values: Sequence[float]) -> _Noise:
        """That of how far the points lie off."""
        start = len(values) // 8
        order = sorted(range(start, len(values)), key=values.__getitem__)
        scores = [0] * len(values)
        for rank, place in enumerate(order):
            scores[place] = 2 * rank + 1 - len(order)
        return cls(scores, _bits(scores), start, len(scores))

    def reversed(self) -> _Noise:
        """That of the curve backwards."""
        scores, size = self.scores[::-1], len(self.scores)
        return _Noise(scores, _bits(scores), size - self.stop, size - self.start)


def _bits(scores: Sequence[int]) -> int:
    return sum(1 << i for i, score in enumerate(scores) if score > 0)


class _Curve:
    """The losses of a run, and what their noise is, also blurred and in fewer points."""

    def __init__(self, points: Points) -> None:
        self.losses = [point[_LOSS] for point in points]
        values = _differences(self.losses)
        self.noise = _Noise.of(values)
        self.backwards = self.noise.reversed()
        residuals = _residuals(self.losses)
        self.apart = _Noise.of(residuals if _is_noise(residuals, 0.61) else [])
        is_noise = _is_noise(values)
        self.blur = _blur(values) if is_noise or _is_noise(values, 2 / 3) else 1
        self.usable = len(values) >= _FEWEST and (is_noise or self.blur > 1)
        self._others: dict[tuple[int, int], _Noise] = {}

    def like(self, other: _Curve) -> _Noise:
        """Its noise if it were blurred, and averaged to as many points, as another is."""
        key = other.blur, len(other.losses)
        if key not in self._others:
            losses = _averaged(self.losses, key[1])
            self._others[key] = _Noise.of(_differences(_blurred(losses, key[0])))
        return self._others[key]


def _alike(runs: Sequence[Seen]) -> Iterator[Pair]:
    """Pairs of runs of different seeds with the same noise.

    A curve that was scaled, bent, blurred, shifted, turned over or put into pairs has the noise of
    the original: all of it, or each second or third point of it.
    """
    curves = [_Curve(run.curve) for run in runs]
    usable = [n for n, curve in enumerate(curves) if curve.usable]
    for at, second in enumerate(usable):
        for first in usable[:at]:
            if runs[first].seed != runs[second].seed and _same(curves[first], curves[second]):
                yield first, second


def _same(first: _Curve, second: _Curve) -> bool:
    """Whether two curves have one noise, one of them maybe backwards, blurred or averaged."""
    if _shared(first.noise, second.noise) or _shared(first.noise, second.backwards):
        return True
    if any(_shared(first.apart, second.apart, stride) for stride in (2, 3)):
        return True
    for ours, theirs in ((first, second), (second, first)):
        is_shorter = len(theirs.losses) < len(ours.losses)
        if (is_shorter or theirs.blur > 1) and _shared(ours.like(theirs), theirs.noise):
            return True
    return False


def _shared(first: _Noise, second: _Noise, stride: int = 1) -> bool:
    """Whether noises go together, or against each other, maybe a few points later.

    With a stride, it is enough that each second or third point does. Whether most of it lies to the
    same side is looked at first, because that is quick.
    """
    for lag in range(-_LAGS, _LAGS + 1):
        a, b = max(lag, 0), max(-lag, 0)
        start = max(first.start - a, second.start - b)
        count = (min(first.stop - a, second.stop - b) - start) // stride
        if count < _FEWEST:
            continue
        a, b = a + start, b + start
        unlike = (first.sides >> a) ^ (second.sides >> b)
        # Each value shares points with its neighbours: half of them count as independent.
        most = math.tanh(6 / math.sqrt((count / 2 if stride == 1 else count) - 3))
        for offset in range(stride):
            differing = (unlike & _mask(stride, offset, count)).bit_count()
            if abs(differing - count / 2) < 1.3 * math.sqrt(count):
                continue
            x = first.scores[a + offset :: stride][:count]
            y = second.scores[b + offset :: stride][:count]
            if abs(_correlation(x, y)) > most:
                return True
    return False


@cache
def _mask(stride: int, offset: int, count: int) -> int:
    """So many bits, each `stride` after the one before."""
    return sum(1 << (offset + stride * i) for i in range(count))


def _correlation(x: Sequence[int], y: Sequence[int]) -> float:
    """Of values about zero; zero if either is constant."""
    size = math.sqrt(math.sumprod(x, x) * math.sumprod(y, y))
    return math.sumprod(x, y) / size if size else 0.0


def _differences(losses: Sequence[float]) -> list[float]:
    return [b - (a + c) / 2 for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]


def _residuals(losses: Sequence[float]) -> list[float]:
    """How far each point lies off a parabola through its eight neighbours and itself.

    More of it is the point's own noise than of a difference from two neighbours.
    """
    # Savitzky and Golay 1964, table I
    weights = (-21, 14, 39, 54, 59, 54, 39, 14, -21)
    return [
        losses[i] - math.sumprod(weights, losses[i - 4 : i + 5]) / 231
        for i in range(4, len(losses) - 4)
    ]


def _is_noise(values: Sequence[float], often: float = 0.73) -> bool:
    """Whether it changes sides as often as noise does, rather than as a trend bends.

    That of independent points does three times of four; that of a blurred curve, two of three.
    """
    kept = values[len(values) // 8 :]
    for part in (kept, kept[: len(kept) // 2], kept[len(kept) // 2 :]):
        changes = sum((a > 0) != (b > 0) for a, b in pairwise(part))
        if changes <= often * (len(part) - 1) - 1.25 * math.sqrt(len(part)):
            return False
    return True


def _blur(values: Sequence[float]) -> int:
    """Over how many neighbours each point of a curve is a mean, as its noise shows; 1 if none.

    The noise of such means goes against itself so many points later. That of independent points
    does so for the next one alone.
    """
    values = values[len(values) // 8 :]
    middle = statistics.median(map(abs, values)) if values else 0.0
    most = [max(-3 * middle, min(3 * middle, value)) for value in values]
    total = math.sumprod(most, most)
    lowest, width = min(
        ((math.sumprod(most[lag:], most[:-lag]) / total, lag)
         for lag in range(3, min(_WIDEST, len(most) // 3) + 1) if total),
        default=(0.0, 1),
    )  # fmt: skip
    return width if lowest < -0.35 else 1


def _blurred(losses: Sequence[float], width: int) -> list[float]:
    """The mean of `width` neighbours for each point, as many as there are at the ends."""
    before, after = (width - 1) // 2, width // 2
    windows = (losses[max(0, i - before) : i + after + 1] for i in range(len(losses)))
    return [math.fsum(window) / len(window) for window in windows]


def _averaged(losses: Sequence[float], count: int) -> Sequence[float]:
    """The means of `count` equal parts, where there are more points than that."""
    if count >= len(losses):
        return losses
    sums = [0.0, *accumulate(losses)]

    def until(part: int) -> float:
        whole, rest = divmod(part * len(losses), count)
        return sums[whole] + (losses[whole] * rest / count if rest else 0.0)

    width = len(losses) / count
    return [(until(i + 1) - until(i)) / width for i in range(count)]
