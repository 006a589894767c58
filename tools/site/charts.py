"""What an experiment's runs show: curves against its origin's, and what they allow to be said."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tools.ledger.ledger import Entry
from tools.runs.compare_runs import Comparison, Group, Reading, amount, compare, groups, sentence
from tools.runs.run_summary import RUNS, Run
from tools.runs.stats import Sample, thin
from tools.site.markup import text
from tools.site.svg import POINTS, Series, chart

_COLUMN = {"tokens": 1, "time": 2}


def runs_section(entry: Entry, runs: Sequence[Run], against: Sequence[Run]) -> str:
    """The section's HTML, without its heading."""
    if not runs:
        return "<p>No run is recorded.</p>"
    comparisons = compare(runs, against)
    compared = {id(run) for c in comparisons for run in c.variant.runs}
    alone = [g for g in groups(runs) if not all(id(run) in compared for run in g.runs)]
    parts = [_comparison(c, f"c{i}") for i, c in enumerate(comparisons)]
    for i, group in enumerate(alone):
        parts.append(_charts([(group, False)], f"a{i}"))
        if against:
            parts.append(f"<p>{text(entry.origin)} has no run on the same data.</p>")
        elif entry.origin != "none":
            parts.append(f"<p>{text(entry.origin)} has no recorded run to compare with.</p>")
    return f"<div data-search-exclude>{''.join(parts)}{_runs_table(runs)}</div>"


def _comparison(found: Comparison, name: str) -> str:
    ours, theirs = found.variant.variant, found.origin.variant
    parts = [_charts([(found.origin, True), (found.variant, False)], name)]
    if found.differs:
        parts.append(f"<p>Settings that differ: {text(', '.join(found.differs))}.</p>")
    rows = []
    for axis, reading in found.readings.items():
        at, notes = "", ""
        if isinstance(reading, Reading):
            at = f" ({amount(axis, reading.at)})"
            notes = "".join(f"<br><small>{text(note)}</small>" for note in reading.notes)
        verdict, between, rest = text(sentence(reading, ours, theirs)).partition("; ")
        said = f"<b>{verdict}</b>{between}{rest}"
        rows.append(f"<dt>Equal {axis}{text(at)}</dt><dd>{said}{notes}</dd>")
    return "".join(parts) + f'<dl class="grug-claims">{"".join(rows)}</dl>'


def _charts(sides: Sequence[tuple[Group, bool]], name: str) -> str:
    names = " and ".join(group.variant for group, _ in sides)
    drawn = []
    for axis in ("tokens", "time"):
        column = _COLUMN[axis]
        size, unit = _unit(axis, max(r.seconds for group, _ in sides for r in group.runs))
        series = [
            Series(
                group.variant,
                dashed,
                tuple(_curve(run, column, size) for run in group.runs),
                _marks(group, column, size),
            )
            for group, dashed in sides
        ]
        title = f"Loss of {names} over {unit}"
        drawn.append(
            chart(
                series,
                name=f"{name}-{axis}",
                title=title,
                desc=f"{title}. {_ends(sides)}",
                x=unit,
                y="loss, nats per token",
            )
        )
    return f'<figure class="grug-charts">{"".join(drawn)}{_caption(sides)}</figure>'


def _curve(run: Run, column: int, size: float) -> list[tuple[float, float]]:
    points = [(point[column] / size, point[3]) for point in run.curve]
    return [(x, y) for x, y in thin(points, POINTS)]


def _marks(group: Group, column: int, size: float) -> tuple[tuple[float, float], ...]:
    """Held-out losses, the mean over the seeds that were evaluated at a step."""
    steps: dict[float, list[tuple[float, float]]] = {}
    for run in group.runs:
        for point in run.heldout:
            steps.setdefault(point[0], []).append((point[column] / size, point[3]))
    return tuple(
        (fmean(x for x, _ in points), fmean(y for _, y in points))
        for _, points in sorted(steps.items())
    )


def _unit(axis: str, longest: float) -> tuple[float, str]:
    """What to divide by, and what that gives."""
    if axis == "tokens":
        return 1.0, "tokens"
    for size, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 4 * size:
            return size, f"{unit} of training"
    return 1.0, "seconds of training"


def _ends(sides: Sequence[tuple[Group, bool]]) -> str:
    ends = (
        f"{group.variant} ends at {_ending(group).mean:.3f} ({_count(len(group.runs), 'seed')})"
        for group, _ in sides
    )
    return "; ".join(ends) + "."


def _ending(group: Group) -> Sample:
    return Sample(tuple(run.curve[-1][3] for run in group.runs))


def _caption(sides: Sequence[tuple[Group, bool]]) -> str:
    lines = " ".join(
        f"{'Dashed' if dashed else 'Solid'}: {text(group.variant)}, "
        f"{_count(len(group.runs), 'seed')}."
        for group, dashed in sides
    )
    shaded = " Shaded: range over seeds." if any(len(g.runs) > 1 for g, _ in sides) else ""
    marks = " Dots: held out." if any(run.heldout for g, _ in sides for run in g.runs) else ""
    kinds = {f"{run.devices['count']} × {run.devices['kind']}" for g, _ in sides for run in g.runs}
    where = f" On {text(', '.join(sorted(kinds)))}."
    return f"<figcaption>{lines}{shaded} Training loss.{marks}{where}</figcaption>"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


_COLUMNS = (
    "Run",
    "Seed",
    "Steps",
    "Tokens",
    "Loss",
    "Held-out bpb",
    "Tokens/s",
    "Devices",
    "Commit",
)


def _runs_table(runs: Sequence[Run]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    rows = "".join(_run(run) for run in runs)
    return (
        '<div class="grug-scroll"><table class="grug-runs"><thead><tr>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _run(run: Run) -> str:
    bpb, planned = run.final["heldout_bpb"], run.config.get("steps")
    commit = (
        f"{run.git['commit'][:9]}{'+' if run.git['dirty'] else ''}" if run.git["commit"] else ""
    )
    early = f" of {planned:,}" if isinstance(planned, int) and planned > run.steps else ""
    link = f"../{RUNS.removeprefix('docs/reports/')}/{run.variant}/{run.run}.json"
    cells = (
        f'<a href="{text(link)}">{text(run.run)}</a>' + (" (mixed)" if run.mixed_sources else ""),
        f"{run.seed}",
        f"{run.steps:,}{early}",
        amount("tokens", run.tokens).removesuffix(" tokens"),
        f"{run.final['train_loss']:.4f}",
        "" if bpb is None else f"{bpb:.4f}",
        f"{run.tokens_per_second:,.0f}",
        text(f"{run.devices['count']} × {run.devices['kind']}"),
        f"<code>{text(commit)}</code>" if commit else "",
    )
    labelled = zip(_COLUMNS, cells, strict=True)
    body = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in labelled)
    return f"<tr>{body}</tr>"
