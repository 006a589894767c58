"""Tests from a few seeds whether a mean is below a target.

Uses the standard library alone, because lint runs it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def student_tail(t: float, freedom: int) -> float:
    """P(T <= t) for Student's t with integer degrees of freedom (Abramowitz, Stegun, 26.7.3-4)."""
    theta = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    is_odd = freedom % 2
    term, total = 1.0, 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * (2 * k + 1 + is_odd) / (2 * k + 2 + is_odd)
    inside = 2 / math.pi * (theta + sine * math.cos(theta) * total) if is_odd else sine * total
    return max(0.0, (1 + inside) / 2)


def below(values: Sequence[float], target: float) -> float | None:
    """p-value of a one-sided one-sample t-test that the mean of `values` is below `target`.

    None if the values allow no test: fewer than two, or without any spread, which are copies rather
    than seeds.
    """
    if len(values) < 2 or not (spread := statistics.stdev(values)):
        return None
    t = (statistics.fmean(values) - target) / (spread / math.sqrt(len(values)))
    return student_tail(t, len(values) - 1)
