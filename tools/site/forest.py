"""A forest plot: each pair's difference, and below them the mean with its interval."""

from __future__ import annotations

from collections.abc import Callable

from tools.runs.compare_runs import Reading, better, between
from tools.site.markup import text
from tools.site.svg import number, short, ticks

WIDTH, ROW = 460, 26
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 78, 30, 30


def forest(reading: Reading, variant: str, origin: str) -> str:
    """The plot as SVG; empty without two pairs and a test of them.

    Args:
        reading: both sides at one point, with its pairs.
        variant: the name of the one; what is left of zero is its gain.
        origin: the name of the other.
    """
    test = reading.test
    if test is None or len(reading.pairs) < 2:
        return ""
    values = [pair.difference for pair in reading.pairs]
    edge = max(map(abs, (*values, test.low, test.high))) * 1.08
    height = _TOP + ROW * (len(values) + 1) + _BOTTOM

    def x(value: float) -> str:
        return number(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value + edge) / (2 * edge))

    parts = [_head(reading, variant, origin, height), *_axis(x, edge, height)]
    for row, pair in enumerate(reading.pairs):
        y = _TOP + ROW * row + ROW // 2
        parts.append(_label(y, f"seed {pair.seed}", pair.difference))
        parts.append(f'<circle class="grug-pair" r="4.5" cx="{x(pair.difference)}" cy="{y}"/>')
    y = _TOP + ROW * len(values) + ROW // 2
    left, right, middle = x(test.low), x(test.high), x(test.difference)
    diamond = f"{middle},{y - 7} {right},{y} {middle},{y + 7} {left},{y}"
    parts.append(f'<line class="grug-grid" x1="8" x2="{WIDTH - 8}" y1="{y - 13}" y2="{y - 13}"/>')
    parts.append(_label(y, "all", test.difference, "grug-label variant"))
    parts.append(f'<polygon class="grug-diamond" points="{diamond}"/>')
    return "".join(parts) + "</svg>"


def _head(reading: Reading, variant: str, origin: str, height: int) -> str:
    test = reading.test
    title = f"{variant} less {origin}, by pairs of seeds"
    told = ""
    if test:
        mean, interval = better(test.difference, reading.metric), between(test.low, test.high)
        told = f"{len(reading.pairs)} pairs; the mean is {mean}, its 95% interval {interval}."
    return (
        f'<svg class="grug-forest" data-search-exclude role="img" viewBox="0 0 {WIDTH} {height}" '
        'aria-labelledby="forest-title forest-desc" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="forest-title">{text(title)}</title>'
        f'<desc id="forest-desc">{text(told)}</desc>'
    )


def _axis(x: Callable[[float], str], edge: float, height: int) -> list[str]:
    """Zero, the ticks, and what either side of zero means."""
    bottom = height - _BOTTOM
    zero = x(0.0)
    parts = [f'<line class="grug-axis" x1="{zero}" x2="{zero}" y1="{_TOP - 8}" y2="{bottom}"/>']
    for value in ticks(-edge, edge, 4):
        place = x(value)
        parts.append(
            f'<line class="grug-grid" x1="{place}" x2="{place}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{place}" y="{bottom + 18}" text-anchor="middle">{_signed(value)}</text>'
        )
    for place, anchor, words in (
        (float(zero) - 8, "end", "← better"),
        (float(zero) + 8, "start", "worse →"),
    ):
        parts.append(
            f'<text class="grug-dim" x="{number(place)}" y="14" text-anchor="{anchor}">'
            f"{words}</text>"
        )
    return parts


def _signed(value: float) -> str:
    shown = short(abs(value))
    return shown if shown == "0" else f"{'−' if value < 0 else '+'}{shown}"


def _label(y: int, name: str, value: float, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    shown = f"{value:+.4f}".replace("-", "−")
    return (
        f'<text{style} x="8" y="{y}" dy="4">{name}</text>'
        f'<text{style} x="{WIDTH - 8}" y="{y}" dy="4" text-anchor="end">{shown}</text>'
    )
