"""Statistics of a few seeds: means, spreads, t-tests (paired, and Welch's), q-values and power."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.special import chdtri, ncfdtr, stdtr, stdtrit


@dataclass(frozen=True)
class Sample:
    """One number per seed."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation over seeds; None for a single value."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Test:
    """The difference of two means (first minus second), its interval and its p-value."""

    difference: float
    low: float
    high: float
    p: float
    freedom: float
    method: str
    """`paired t` or `Welch`."""


PAIRED, WELCH = "paired t", "Welch"


def paired(first: Sample, second: Sample, confidence: float = 0.95) -> Test | None:
    """The two-sided t-test of pairs, which assumes normal differences; value i belongs to value i.

    None if the samples allow no test: a single pair has no spread, and differences without any are
    of copies rather than of seeds. Where each pair is of equal values, p is 1.
    """
    differences = [a - b for a, b in zip(first.values, second.values, strict=True)]
    if len(differences) < 2:
        return None
    if not any(differences) and len(set(first.values)) > 1:
        return Test(0.0, 0.0, 0.0, 1.0, len(differences) - 1, PAIRED)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error <= 1e-12 * max(map(abs, (*first.values, *second.values))):
        return None
    mean, freedom = statistics.fmean(differences), len(differences) - 1
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return Test(mean, mean - half, mean + half, p, freedom, PAIRED)


def welch(first: Sample, second: Sample, confidence: float = 0.95) -> Test | None:
    """Welch's two-sided t-test, which assumes normal errors and no common variance.

    None if the samples allow no test: a single value has no spread, and samples without any spread
    are copies rather than seeds.
    """
    if min(first.n, second.n) < 2:
        return None
    parts = [statistics.variance(s.values) / s.n for s in (first, second)]
    variance = sum(parts)
    if variance <= (1e-12 * max(abs(first.mean), abs(second.mean), 1e-300)) ** 2:
        return None
    # Welch and Satterthwaite, from shares of the variance: its square could underflow.
    shares = zip(parts, (first.n, second.n), strict=True)
    freedom = 1 / sum((part / variance) ** 2 / (n - 1) for part, n in shares)
    difference, error = first.mean - second.mean, math.sqrt(variance)
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return Test(difference, difference - half, difference + half, p, freedom, WELCH)


def q_values(p_values: Sequence[float]) -> list[float]:
    """The q-value of each p-value: the false discovery rate of Benjamini and Hochberg (1995).

    Of all claims with a q-value of at most q, a share of at most q is expected to be false.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    q_values = [1.0] * len(p_values)
    least = 1.0
    for place, i in enumerate(order):
        least = min(least, p_values[i] * len(p_values) / (len(p_values) - place))
        q_values[i] = least
    return q_values


SIGNIFICANT = 0.05
POWER = 0.8
MOST_SEEDS = 1000


def power(effect: float, n: int, *, is_paired: bool) -> float:
    """The chance that a two-sided t-test at p < SIGNIFICANT finds a difference that is there.

    Args:
        effect: the difference, in standard deviations: of the differences of pairs, or of one side.
        n: the number of pairs, or of seeds of each side, at least 2.
        is_paired: which of the two it is.
    """
    freedom = n - 1 if is_paired else 2 * (n - 1)
    shift = min(abs(effect) * math.sqrt(n if is_paired else n / 2), 1e4)  # found for certain
    limit = float(stdtrit(freedom, 1 - SIGNIFICANT / 2))
    # By the noncentral F of t squared: scipy's noncentral t is not a number for large shifts.
    return 1 - float(ncfdtr(1, freedom, shift**2, limit**2))


def seeds_needed(effect: float, *, is_paired: bool) -> int | None:
    """The least number of seeds a side that has a `power` of POWER; None beyond MOST_SEEDS."""
    found = (n for n in range(2, MOST_SEEDS + 1) if power(effect, n, is_paired=is_paired) >= POWER)
    return next(found, None)


def largest_spread(spread: float, n: int, confidence: float = 0.8) -> float:
    """The upper end of the interval of a standard deviation that n values (normal) showed."""
    return spread * math.sqrt((n - 1) / float(chdtri(n - 1, (1 + confidence) / 2)))


def value_at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """Linear interpolation at `x` between (x, y) points sorted by x; None beyond the ends."""
    if not points or not points[0][0] <= x <= points[-1][0]:
        return None
    i = bisect_left(points, x, key=lambda point: point[0])
    (right, above) = points[i]
    if right == x:
        return above
    (left, below) = points[i - 1]
    return below + (above - below) * (x - left) / (right - left)


def thin(points: Sequence[Sequence[float]], limit: int) -> list[list[float]]:
    """At most `limit` points, each the mean of equally many neighbours, give or take one.

    Means preserve the curve: the mean over all points, weighted by how many each stands for, does
    not change.
    """
    parts = min(limit, len(points))
    edges = [len(points) * i // parts for i in range(parts + 1)]
    return [
        [statistics.fmean(column) for column in zip(*points[a:b], strict=True)]
        for a, b in pairwise(edges)
    ]
