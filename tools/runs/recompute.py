"""What a record of a run says twice, or what follows from other parts of it, is computed again.

Uses the standard library alone, because lint runs it on speedruns.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

Fault = tuple[str, str]
"""A field, and what is wrong with it."""
Points = Sequence[Sequence[float]]
"""Rows of (step, tokens, seconds, loss, ...)."""

_ZEROS = re.compile(r"0+")
# Numbers are rounded to six digits when they are recorded.
_ROUNDED = 2e-5


def is_zero(digest: Any) -> bool:
    """Whether a digest is that of nothing: zeros alone."""
    return isinstance(digest, str) and bool(_ZEROS.fullmatch(digest))


def close(value: float, other: float, tolerance: float = _ROUNDED) -> bool:
    """Whether two numbers are equal, but for the rounding of a record."""
    return math.isclose(value, other, rel_tol=tolerance, abs_tol=1e-9)


def counted(
    steps: int, tokens: int, config: Mapping[str, Any], curve: Points, planned: Any
) -> Iterator[Fault]:
    """Faults of the numbers of steps and tokens, beside the settings and the curve.

    Where the curve's own tokens per step change, as with a batch that grows, its end alone counts.
    """
    if isinstance(planned, int) and steps > planned:
        yield "steps", f"is {steps:,}, of {planned:,} that the config plans"
    rate = tokens_per_step(config)
    is_even = all(abs(point[1] - point[0] * rate) <= 0.05 * rate + 1 for point in curve)
    if rate and is_even and tokens != steps * rate:
        yield (
            "tokens",
            f"is {tokens:,}, but {steps:,} steps of {rate:,} tokens are {steps * rate:,}",
        )
    elif rate and not is_even and _is_straight(curve):
        yield "curve", f"has other tokens at its steps than {rate:,} per step, as the config says"
    end = curve[-1]
    # Its last point is a mean over neighbours, which end with the last step.
    width = math.ceil(steps / len(curve))
    if not steps - 2 * width <= end[0] <= steps:
        yield "curve", f"ends at step {end[0]:g}, and the run at step {steps:,}"
    elif not _follows(tokens, curve, 1):
        yield "tokens", f"is {tokens:,}, but the curve has {end[1]:,.0f} at step {end[0]:g}"


def tokens_per_step(config: Mapping[str, Any]) -> int:
    """As the settings say it; 0 if they do not."""
    rows, length = config.get("batch_size"), config.get("sequence_length")
    return rows * length if is_size(rows) and is_size(length) else 0


def _is_straight(curve: Points) -> bool:
    """Whether the tokens per step are the same all along a curve."""
    first = curve[0][1] / curve[0][0]
    return all(close(point[1] / point[0], first, 0.05) for point in curve)


def _follows(total: float, curve: Points, column: int) -> bool:
    """Whether a total lies after the curve's end in that column, and not far after."""
    end = curve[-1][column]
    longest = max((b[column] - a[column] for a, b in pairwise(curve)), default=end)
    return end * (1 - _ROUNDED) <= total <= (end + 2 * longest) * (1 + _ROUNDED)


def timed(seconds: float, curve: Points) -> Iterator[Fault]:
    """Faults of the time: the curve's last point lies before the end, and not far before."""
    if not _follows(seconds, curve, 2):
        yield "seconds", f"is {seconds:g}, but the curve ends at {curve[-1][2]:g} s"


def trained(loss: float, curve: Points) -> Iterator[Fault]:
    """Faults of the final training loss, a mean of the last 2% of the steps: the curve's end."""
    tail = [point[3] for point in curve[-max(2, len(curve) // 20) :]]
    room = max(tail) - min(tail) + _ROUNDED * max(map(abs, tail))
    if not min(tail) - room <= loss <= max(tail) + room:
        yield "final", f"train_loss is {loss:g}, but the curve ends at {curve[-1][3]:g}"


def held_out(
    final: Mapping[str, float | None], heldout: Points, steps: int, tokens: int, seconds: float
) -> Iterator[Fault]:
    """Faults of the final held-out loss; rows of evaluations end with loss and bits per byte."""
    if not heldout:
        if final["heldout_loss"] is not None or final["heldout_bpb"] is not None:
            yield "final", "has a held-out loss, and heldout no evaluation"
        return
    end = heldout[-1]
    if end[0] > steps or end[2] > seconds * (1 + _ROUNDED):
        yield (
            "heldout",
            f"ends at step {end[0]:g}, after {end[2]:g} s; the run at step {steps:,}, after "
            f"{seconds:g} s",
        )
    at_end = end[0] == steps
    for name, value in (("heldout_loss", end[3]), ("heldout_bpb", end[4])):
        expected = value if at_end else None
        if final[name] != expected:
            yield "final", f"{name} is {final[name]}, but heldout ends with {expected}"
    if at_end and end[1] != tokens:
        yield "tokens", f"is {tokens:,}, but heldout has {end[1]:,.0f} at the last step"
    # Both are sums over the same text: of nats, over its targets, and of bits, over its bytes.
    shares = [row[3] / row[4] for row in heldout if row[4]]
    if len(shares) < len(heldout) or not all(close(x, shares[0], 1e-4) for x in shares):
        yield "heldout", "has losses and bits per byte in a ratio that changes, over the same text"


def evaluated(heldout: Points, targets: Any, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the evaluations' number of targets: they read no more than the config allows."""
    if not heldout and targets is not None:
        yield "heldout_targets", f"is {targets:,}, and heldout has no evaluation"
    most = config.get("eval_tokens")
    if targets is not None and is_size(most) and targets > most:
        yield "heldout_targets", f"is {targets:,}, of {most:,} that the config allows"


def placed(heldout: Points, curve: Points, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the evaluations' tokens and seconds: the curve's before and after that step.

    A point of the curve is a mean over neighbours, so the next but one is a bound.
    """
    rate = tokens_per_step(config)
    for row in heldout:
        if rate and row[1] != row[0] * rate and abs(row[1] - row[0] * rate) <= 0.05 * rate:
            yield "heldout", f"has {row[1]:,} tokens at step {row[0]:,} of {rate:,} tokens each"
            return
    steps = [point[0] for point in curve]
    for row in heldout:
        at = bisect_left(steps, row[0])
        before, after = curve[max(at - 2, 0) : max(at - 1, 0)], curve[at + 1 : at + 2]
        for column, name in ((1, "tokens"), (2, "seconds")):
            early = [point for point in before if row[column] < point[column] * (1 - _ROUNDED)]
            late = [point for point in after if row[column] > point[column] * (1 + _ROUNDED)]
            for point in (*early, *late):
                yield (
                    "heldout",
                    f"has {row[column]:,g} {name} at step {row[0]:g}, but the curve has "
                    f"{point[column]:,g} at step {point[0]:g}",
                )
                return


def learned(heldout: Points, curve: Points) -> Iterator[Fault]:
    """Faults of the held-out losses: text that was not trained on is not learned far better.

    Overfitting only raises them, and what a training loss has besides is less than half of it.
    """
    steps = [point[0] for point in curve]
    for row in heldout:
        at = bisect_left(steps, row[0])
        least = min(point[3] for point in curve[max(at - 2, 0) : at + 2])
        if row[3] < least / 2:
            yield (
                "heldout",
                f"has the loss {row[3]:g} at step {row[0]:g}, not half of the curve's {least:g}",
            )
            return


def averaged(
    final: Mapping[str, float | None], heldout: Points, config: Mapping[str, Any]
) -> Iterator[Fault]:
    """Faults of the running average's values: over the same text as the weights' own."""
    loss, bits = final["ema_loss"], final["ema_bpb"]
    if loss is not None and config.get("ema_decay") == 0:
        yield "final", "has ema_loss, and the config no running average"
        return
    if (loss is None) != (bits is None) or (loss is not None and final["heldout_loss"] is None):
        yield "final", "has one of ema_loss, ema_bpb and heldout_loss without the others"
    elif loss is not None and bits is not None:
        own = heldout[-1]
        if not bits or not close(loss / bits, own[3] / own[4], 1e-4):
            yield "final", "has ema_loss and ema_bpb in another ratio than heldout's values"


def sped(
    speed: float, spread: float | None, steps: int, tokens: int, curve: Points
) -> Iterator[Fault]:
    """Faults of the median speed and of the steps' spread, beside the curve's seconds.

    A tenth of the steps took less than the median less the spread, and a tenth more than the
    median plus the spread. From one point of a curve to the next, of which each is a mean over k
    neighbours, 2k - 1 steps count, so that no more than 2k - 1 tenths lie off on a side.
    """
    parts = [(b[0] - a[0], b[1] - a[1], b[2] - a[2]) for a, b in pairwise(curve)]
    if len(parts) < 10 or any(time <= 0 for *_, time in parts):
        return  # of few points, or of times shorter than a record tells
    middle = statistics.median(read / time for _, read, time in parts)
    room = 2 + 2 * (spread or 0)
    if not middle / room <= speed <= middle * room:
        yield "tokens_per_second", f"is {speed:g}, but the median of the curve is {middle:g}"
    each, median = [time / step for step, _, time in parts], tokens / steps / speed
    is_even = all(close(read / step, tokens / steps, 1e-3) for step, read, _ in parts)
    if spread is None or not is_even:
        return
    most = (2 * math.ceil(steps / len(curve)) - 1) / 10 * len(parts) + 2
    low, high = median * (1 - spread) * 0.98, median * (1 + spread) * 1.02
    if (off := max(sum(x < low for x in each), sum(x > high for x in each))) > most:
        yield (
            "step_time_spread",
            f"is {spread:g} of a median of {median:.3g} s, but {off} of the curve's {len(parts)} "
            "parts took a step farther from it than that",
        )


def is_size(value: Any) -> TypeGuard[int]:
    """Whether a setting is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**15
