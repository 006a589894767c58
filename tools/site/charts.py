"""The section on an experiment's runs: curves beside its origin's, and the claims they allow."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tools.runs.compare_runs import Comparison, Group, Reading, Refusal, amount, groups, sentence
from tools.runs.run_summary import RUNS, Run
from tools.runs.stats import Sample, thin
from tools.site.markup import text
from tools.site.svg import POINTS, Series, chart

_COLUMN = {"tokens": 1, "time": 2}


def runs_section(runs: Sequence[Run], said: Sequence[Comparison | Refusal]) -> str:
    """The section's HTML without its heading.

    Args:
        runs: the experiment's runs.
        said: what can be said of each of their groups; nothing of one written from scratch.
    """
    if not runs:
        return "<p>No run is recorded.</p>"
    parts: list[str] = []
    for i, one in enumerate(said):
        if len(said) > 1:
            parts.append(_heading(one.variant))
        if isinstance(one, Comparison):
            parts.append(_comparison(one, f"c{i}"))
        else:
            parts += [_charts([(one.variant, False)], f"c{i}"), f"<p>{text(_sentence(one))}</p>"]
    alone = [] if said else groups(runs)
    for i, group in enumerate(alone):
        parts += [_heading(group)] if len(alone) > 1 else []
        parts.append(_charts([(group, False)], f"a{i}"))
    return f"<div data-search-exclude>{''.join(parts)}{_runs_table(runs)}</div>"


def _heading(group: Group) -> str:
    """What tells a group from the experiment's others, as far as a heading can."""
    run = group.runs[0]
    jax = f", JAX {run.versions['jax']}" if run.versions.get("jax") else ""
    data = f", data {run.data_digest[:8]}" if run.data_digest else ""
    return f"<h3>{text(f'{run.steps:,} steps{data}{jax}')}</h3>"


def _sentence(refusal: Refusal) -> str:
    said = str(refusal)
    return f"{said[:1].upper()}{said[1:]}."


def _comparison(comparison: Comparison, name: str) -> str:
    ours, theirs = comparison.variant.variant, comparison.origin.variant
    parts = [_charts([(comparison.origin, True), (comparison.variant, False)], name)]
    if comparison.differs:
        parts.append(f"<p>Settings that differ: {text('; '.join(comparison.differs))}.</p>")
    rows = []
    for axis, reading in comparison.readings.items():
        spent, notes = "", ""
        q = comparison.q if axis == "tokens" else None
        if isinstance(reading, Reading):
            spent = f" ({amount(axis, reading.spent)})"
            notes = "".join(f"<br><small>{text(note)}</small>" for note in reading.notes)
        verdict, between, remainder = text(sentence(reading, ours, theirs, q)).partition("; ")
        claim = f"<b>{verdict}</b>{between}{remainder}"
        rows.append(f"<dt>Equal {axis}{text(spent)}</dt><dd>{claim}{notes}</dd>")
    return "".join(parts) + f'<dl class="grug-claims">{"".join(rows)}</dl>'


def _charts(sides: Sequence[tuple[Group, bool]], name: str) -> str:
    names = " and ".join(group.variant for group, _ in sides)
    charts = []
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
        charts.append(
            chart(
                series,
                name=f"{name}-{axis}",
                title=title,
                desc=f"{title}. {_ends(sides)}",
                x=unit,
                y="loss, nats per token",
            )
        )
    return f'<figure class="grug-charts">{"".join(charts)}{_caption(sides)}</figure>'


def _curve(run: Run, column: int, size: float) -> list[tuple[float, float]]:
    points = [(point[column] / size, point[3]) for point in run.curve]
    return [(x, y) for x, y in thin(points, POINTS)]


def _marks(group: Group, column: int, size: float) -> tuple[tuple[float, float], ...]:
    """Held-out losses by step: means over the seeds that were evaluated at that step."""
    steps: dict[float, list[tuple[float, float]]] = {}
    for run in group.runs:
        for point in run.heldout:
            steps.setdefault(point[0], []).append((point[column] / size, point[3]))
    return tuple(
        (fmean(x for x, _ in points), fmean(y for _, y in points))
        for _, points in sorted(steps.items())
    )


def _unit(axis: str, longest: float) -> tuple[float, str]:
    """(divisor, unit of the quotient) for an axis of which the longest run spends `longest`."""
    if axis == "tokens":
        return 1.0, "tokens"
    for size, unit in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 4 * size:
            return size, f"{unit} of training"
    return 1.0, "seconds of training"


def _ends(sides: Sequence[tuple[Group, bool]]) -> str:
    sentences = (
        f"{group.variant} ends at {_ending(group).mean:.3f} ({_count(len(group.runs), 'seed')})"
        for group, _ in sides
    )
    return "; ".join(sentences) + "."


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
    hardware = f" On {text(', '.join(sorted(kinds)))}."
    return f"<figcaption>{lines}{shaded} Training loss.{marks}{hardware}</figcaption>"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
        f'<details class="grug-fold"><summary>{_count(len(runs), "run")}</summary>'
        '<div class="grug-scroll"><table class="grug-runs"><thead><tr>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _run(run: Run) -> str:
    bpb, planned = run.final["heldout_bpb"], run.config.get("steps")
    commit = (
        f"{run.git['commit'][:9]}{'+' if run.git['dirty'] else ''}" if run.git["commit"] else ""
    )
    planned_text = f" of {planned:,}" if isinstance(planned, int) and planned > run.steps else ""
    branch = f", from {run.ancestors[-1]['run']}@{run.branch_step}" if run.ancestors else ""
    link = f"../{RUNS.removeprefix('docs/reports/')}/{run.variant}/{run.run}.json"
    cells = (
        f'<a href="{text(link)}">{text(run.run)}</a>' + (" (mixed)" if run.mixed_sources else ""),
        f"{run.seed}",
        f"{run.steps:,}{planned_text}{text(branch)}",
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
