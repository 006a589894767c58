"""What a few seeds allow to be said: mean, spread, and Welch's t-test between two samples."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Sample:
    """One number a seed. `spread` is their standard deviation, None of a single one."""

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
    """The difference of two means (first less second), its interval and its p-value."""

    difference: float
    low: float
    high: float
    p: float
    freedom: float


def welch(first: Sample, second: Sample, confidence: float = 0.95) -> Test | None:
    """Welch's two-sided t-test, which assumes normal errors and no common variance.

    None where the samples allow none: a single value has no spread, and samples without any spread
    are not seeds but copies.
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
    return Test(difference, difference - half, difference + half, p, freedom)


def value_at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """The line through (x, y) points, by x, read at `x`; None beyond its ends."""
    if not points or not points[0][0] <= x <= points[-1][0]:
        return None
    i = bisect_left(points, x, key=lambda point: point[0])
    (right, above) = points[i]
    if right == x:
        return above
    (left, below) = points[i - 1]
    return below + (above - below) * (x - left) / (right - left)


def thin(points: Sequence[Sequence[float]], most: int) -> list[list[float]]:
    """At most `most` points, each the mean of as many neighbours as any other, give or take one.

    Means keep what the curve says: the mean over all points, weighted by how many each stands for,
    does not change.
    """
    parts = min(most, len(points))
    edges = [len(points) * i // parts for i in range(parts + 1)]
    return [
        [statistics.fmean(column) for column in zip(*points[a:b], strict=True)]
        for a, b in pairwise(edges)
    ]
