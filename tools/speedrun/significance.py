"""Whether a mean lies below a target, from a few seeds. Standard library alone: lint runs it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def student_tail(t: float, freedom: int) -> float:
    """P(T <= t) of Student's t with whole degrees of freedom (Abramowitz and Stegun, 26.7.3-4)."""
    theta = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    odd = freedom % 2
    term, total = 1.0, 0.0
    for k in range(freedom // 2):
        total += term
        term *= square * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    inside = 2 / math.pi * (theta + sine * math.cos(theta) * total) if odd else sine * total
    return max(0.0, (1 + inside) / 2)


def below(values: Sequence[float], target: float) -> float | None:
    """p-value of a one-sided one-sample t-test that the mean of `values` is below `target`.

    None where they allow none: fewer than two, or values without any spread, which are not seeds
    but copies.
    """
    if len(values) < 2 or not (spread := statistics.stdev(values)):
        return None
    t = (statistics.fmean(values) - target) / (spread / math.sqrt(len(values)))
    return student_tail(t, len(values) - 1)
