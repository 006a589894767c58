"""Inline SVG of loss curves and of the tree of origins. Colours are in docs/assets/archive.css."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tools.runs.stats import value_at
from tools.site.markup import text

Line = list[tuple[float, float]]
Spread = tuple[float, float, float, float]
"""(x, mean, lowest, highest) of several curves."""
WIDTH, HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 92, 14, 40
POINTS = 80
# Losses fall fast at first, so the scale is chosen for what comes after this share of the run.
_HEAD = 0.06


@dataclass(frozen=True)
class Series:
    """One side's curves, one per seed, on one axis; `marks` are held-out losses.

    Lines of one chart that are not dashed differ by `tone`, from 0.
    """

    label: str
    dashed: bool
    curves: tuple[Line, ...]
    marks: tuple[tuple[float, float], ...] = ()
    tone: int = 0

    @property
    def kind(self) -> str:
        """The classes of what is drawn for it."""
        return "origin" if self.dashed else f"variant k{self.tone}" if self.tone else "variant"


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def grid(curves: Sequence[Line]) -> list[float]:
    """POINTS values of x that all curves reach."""
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    return [low + (high - low) * i / (POINTS - 1) for i in range(POINTS)] if high > low else [high]


def spread(curves: Sequence[Line]) -> list[Spread]:
    """Mean and range of the curves at each x that all of them reach."""
    result = []
    for x in grid(curves):
        values = [y for curve in curves if (y := value_at(curve, x)) is not None]
        if len(values) == len(curves):
            result.append((x, math.fsum(values) / len(values), min(values), max(values)))
    return result


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between low and high, about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def short(value: float) -> str:
    """A tick's label: 800K, 2.5M, 4.25."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{round(value, 4):g}"


def chart(series: Sequence[Series], *, name: str, title: str, desc: str, x: str, y: str) -> str:
    """A chart of curves, dashed or solid, labelled at their ends.

    Args:
        series: the curves; several seeds give their mean and, shaded, their range.
        name: a name that is unique on the page.
        title: what the chart shows, in one line.
        desc: the same in a sentence, for readers who cannot see it.
        x: label of the horizontal axis.
        y: label of the vertical axis.
    """
    sides = [(side, spread(side.curves)) for side in series]
    scale = _Scale.fit(sides)
    parts = [
        f'<svg class="grug-chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="{name}-title">{text(title)}</title><desc id="{name}-desc">{text(desc)}</desc>',
        *_frame(scale, x, y),
    ]
    ends: list[tuple[float, str, str]] = []
    for side, points in sides:
        parts += _side(side, points, side.kind, scale)
        ends.append((scale.y(points[-1][1]), side.label, side.kind))
    parts += _labels(ends)
    return "".join(parts) + "</svg>"


@dataclass(frozen=True)
class _Scale:
    """Maps values to coordinates: x from 0 to `right`, y from `low` to `high`."""

    right: float
    low: float
    high: float

    @staticmethod
    def fit(sides: Sequence[tuple[Series, Sequence[Spread]]]) -> _Scale:
        """A scale that holds every curve's end; higher values at the beginning are cut."""
        right = max(x for side, points in sides for x, *_ in (points[-1], *side.marks))
        settled = [p for _, points in sides for p in points if p[0] >= _HEAD * right]
        marks = [y for side, _ in sides for x, y in side.marks if x >= _HEAD * right]
        values = [p[2] for p in settled] + [p[3] for p in settled] + marks
        low, high = min(values), max(values)
        margin = (high - low) * 0.05 or 0.1
        return _Scale(right, low - margin, high + margin)

    def x(self, value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / self.right

    def y(self, value: float) -> float:
        share = (min(value, self.high) - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{number(self.x(a))},{number(self.y(b))}" for a, b in points)


def _side(series: Series, points: Sequence[Spread], kind: str, scale: _Scale) -> list[str]:
    """One side's range over seeds, its mean, and its held-out losses."""
    parts = []
    visible = [p for p in points if p[1] <= scale.high]
    if len(series.curves) > 1:
        upper, lower = [(p[0], p[3]) for p in visible], [(p[0], p[2]) for p in reversed(visible)]
        band = scale.path([*upper, *lower])
        parts.append(f'<polygon class="grug-band {kind}" points="{band}"/>')
    line = scale.path([(p[0], p[1]) for p in visible])
    parts.append(f'<polyline class="grug-line {kind}" points="{line}"/>')
    return parts + [
        f'<circle class="grug-mark {kind}" r="3" cx="{number(scale.x(a))}" '
        f'cy="{number(scale.y(b))}"/>'
        for a, b in series.marks
        if b <= scale.high
    ]


def _frame(scale: _Scale, x: str, y: str) -> list[str]:
    """Grid, axes and their labels."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for value in ticks(scale.low, scale.high, 5):
        place = number(scale.y(value))
        parts.append(
            f'<line class="grug-grid" x1="{_LEFT}" x2="{right}" y1="{place}" y2="{place}"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{place}" dy="4" text-anchor="end">{short(value)}</text>'
        )
    parts.append(f'<line class="grug-axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for value in ticks(0, scale.right, 4):
        place = number(scale.x(value))
        parts.append(
            f'<text x="{place}" y="{bottom + 16}" text-anchor="middle">{short(value)}</text>'
        )
    middle = number((_LEFT + right) / 2)
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{text(x)}</text>')
    # Above the plot, upright: a turned label costs width.
    parts.append(f'<text x="{_LEFT}" y="10">{text(y)}</text>')
    return parts


def _labels(ends: Sequence[tuple[float, str, str]]) -> list[str]:
    """Labels at the ends of curves, at least a line of text apart."""
    parts, last = [], -math.inf
    for place, label, kind in sorted(ends):
        last = max(place, last + 14)
        shown = label if len(label) <= 12 else label[:10] + "…"
        parts.append(
            f'<text class="grug-label {kind}" x="{WIDTH - _RIGHT + 5}" y="{number(last)}" dy="4">'
            f"{text(shown)}</text>"
        )
    return parts


@dataclass(frozen=True)
class Node:
    """An experiment in the tree of origins."""

    name: str
    origin: str
    status: str
    bucket: str


_ROW = 24
_MARKS = {
    "active": '<circle class="grug-node active" cx="{x}" cy="{y}" r="5"/>',
    "superseded": '<circle class="grug-node superseded" cx="{x}" cy="{y}" r="5"/>',
    "deleted": '<path class="grug-node deleted" d="M{l},{t}L{r},{b}M{l},{b}L{r},{t}"/>',
}


def in_order(nodes: Sequence[Node]) -> list[tuple[int, Node]]:
    """(depth, node) with parents before their children, each level in the given order."""
    names = {node.name for node in nodes}
    children: dict[str, list[Node]] = {}
    for node in nodes:
        children.setdefault(node.origin if node.origin in names else "", []).append(node)
    result: list[tuple[int, Node]] = []
    waiting = [(0, node) for node in reversed(children.get("", []))]
    while waiting:
        depth, node = waiting.pop()
        result.append((depth, node))
        waiting += [(depth + 1, child) for child in reversed(children.get(node.name, []))]
    return result


def lineage(nodes: Sequence[Node], *, href: str) -> str:
    """The tree of origins as SVG with links, one row per experiment.

    Args:
        nodes: the experiments, in the order of the ledger.
        href: the address of an experiment's page, with `{name}` in it.
    """
    rows = in_order(nodes)
    deepest = max((depth for depth, _ in rows), default=0)
    step = 22.0 if deepest <= 12 else max(6.0, 264.0 / deepest)
    places = {node.name: i for i, (_, node) in enumerate(rows)}
    above: dict[str, int] = {}
    width = max((step * d + 28 + 9.5 * len(node.name) for d, node in rows), default=0)
    height = _ROW * len(rows) + 8
    count = f"{len(rows)} experiment{'s' if len(rows) != 1 else ''}"
    parts = [
        f'<svg class="grug-lineage" role="group" aria-labelledby="lineage-title lineage-desc" '
        f'width="{math.ceil(width)}" height="{height}" '
        'xmlns="http://www.w3.org/2000/svg">'
        '<title id="lineage-title">Lineage of experiments</title>'
        f'<desc id="lineage-desc">{count}; each is below the one it was copied from.</desc>'
    ]
    for i, (depth, node) in enumerate(rows):
        x, y = 10 + step * depth, 16 + _ROW * i
        if depth:  # from the sibling above, else from the origin: no segment is drawn twice
            top, left = (
                above.get(node.origin, 16 + _ROW * places[node.origin] + 7),
                number(x - step),
            )
            above[node.origin] = y
            parts.append(f'<path class="grug-edge" d="M{left},{top}V{y}H{number(x - 7)}"/>')
        corners = {"l": number(x - 4), "r": number(x + 4), "t": y - 4, "b": y + 4}
        mark = _MARKS.get(node.status, _MARKS["active"]).format(x=number(x), y=y, **corners)
        title = f"{node.name}: {node.status}, {node.bucket}"
        parts.append(
            f'<a href="{text(href.format(name=node.name))}"><title>{text(title)}</title>{mark}'
            f'<text x="{number(x + 11)}" y="{y}" dy="5">{text(node.name)}</text></a>'
        )
    return "".join(parts) + "</svg>"
