"""The archive's index: one table of all experiments, with the tree of origins beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.ledger.ledger import BUCKETS, STATUSES, Entry
from tools.runs.compare_runs import SIGNIFICANT, amount, p_value
from tools.site.markup import clip, inline, sentence, slug, text
from tools.site.results import Result
from tools.site.svg import Node, lineage

COLUMNS = (
    "Experiment",
    "Asked and learned",
    "Difference",
    "Held out",
    "FLOPs",
    "Cost",
    "Changed",
    "Date",
)
_NUMBERS = ("Difference", "Held out", "FLOPs", "Cost", "Changed", "Date")


def index_page(
    entries: Sequence[Entry],
    facts: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Result],
    dates: Mapping[str, str],
    unrecorded: Sequence[str],
) -> str:
    """The page with all experiments.

    Args:
        entries: the ledger's, in their order.
        facts: rows of the list of variants by the experiment's name.
        results: headlines by name; experiments without runs have none.
        dates: the day on which each came, as 2026-11-29, by name.
        unrecorded: paths of variants that the ledger lacks.
    """
    counts = ", ".join(
        f"{n} {status}" for status in STATUSES if (n := sum(e.status == status for e in entries))
    )
    nodes = [Node(e.name, e.origin, e.status, e.bucket) for e in entries]
    blocks = [
        "---\ntitle: Archive of experiments\nhide: [navigation, toc]\n---",
        "# Archive of experiments",
        f'<p class="grug-lead">What was tried, negatives kept: {counts or "nothing yet"}. '
        '<a href="compare.html">Compare their curves</a>.</p>',
    ]
    if unrecorded:
        paths = ", ".join(f"<code>{text(path)}</code>" for path in unrecorded)
        blocks.append(f'<p class="grug-note">Not recorded yet: {paths}</p>')
    table = _table(entries, facts, results, dates)
    tree = lineage(nodes, href="variants/{name}.html")
    blocks.append(
        '<div class="grug-archive" data-search-exclude>'
        '<aside class="grug-tree" aria-labelledby="grug-tree-title"><h2 id="grug-tree-title">'
        'Lineage</h2><p class="grug-note">Each below the one it was copied from. Full dot: active; '
        "open: superseded; cross: deleted.</p>"
        f'<div class="grug-scroll" tabindex="0" role="group" aria-label="Lineage">{tree}</div>'
        f'</aside><div class="grug-list" id="experiments">{table}</div></div>'
    )
    return "\n\n".join(blocks) + "\n"


_NOTE = (
    '<p class="grug-note">Difference: held-out bits per byte less those of the origin at equal '
    "tokens, with the 95% interval; below zero is better; q is the share of false ones to expect "
    "among all that are as sure. Held out: mean over seeds at the end of "
    "training; only values after equal tokens on equal data compare, and sorting keeps them "
    "together. FLOPs: per token, of those of the origin. Cost: of training all the seeds that the "
    "row is about. Changed: lines added and deleted against the origin today. Date: of the commit "
    "that brought it.</p>"
)


def _table(
    entries: Sequence[Entry],
    facts: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Result],
    dates: Mapping[str, str],
) -> str:
    heads = "".join(f'<th scope="col"{_number(name)}>{name}</th>' for name in COLUMNS)
    budgets = sorted({r.budget for r in results.values()}, key=lambda b: (-b[2], str(b)))
    rows = "".join(
        _row(e, facts.get(e.name, {}), results.get(e.name), dates.get(e.name, ""), budgets)
        for e in entries
    )
    choices = "".join(
        f' data-{kind}="{text("|".join(values))}"'
        for kind, values in (("statuses", STATUSES), ("buckets", BUCKETS))
    )
    return (
        f'<table class="grug-index grug-experiments"{choices}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>{_NOTE}"
    )


def _number(column: str) -> str:
    return ' class="num"' if column in _NUMBERS else ""


def _row(
    entry: Entry,
    facts: Mapping[str, Any],
    result: Result | None,
    date: str,
    budgets: Sequence[tuple[str | None, str, int]],
) -> str:
    added, deleted = facts.get("added"), facts.get("deleted")
    changed = f"+{added:,} −{deleted:,}" if added is not None and deleted is not None else ""
    cells = {
        "Experiment": (
            entry.name,
            f'<a href="variants/{entry.name}.html">{_breakable(entry.name)}</a> '
            f'<span class="grug-tag {entry.status}">{entry.status}</span>'
            f"<small>{text(entry.bucket).replace('/', '/<wbr>')}</small>",
        ),
        "Asked and learned": (
            "",
            f"{inline(sentence(clip(entry.purpose, 140)))}<br>"
            f"<b>{inline(sentence(clip(entry.verdict, 160)))}</b>",
        ),
        "Difference": difference(result),
        "Held out": held_out(result, budgets),
        "FLOPs": flops(result),
        "Cost": cost(result),
        "Changed": ((added or 0) + (deleted or 0) if changed else "", changed),
        "Date": (date.replace("-", ""), f"<time>{date}</time>" if date else ""),
    }
    body = "".join(
        f'<td data-label="{label}"{_number(label)}'
        + (f' data-sort="{sort}"' if sort != "" else "")
        + f">{cell}</td>"
        for label, (sort, cell) in cells.items()
    )
    keys = f'data-status="{entry.status}" data-bucket="{slug(entry.bucket)}"'
    return f'<tr id="{entry.name}" {keys}>{body}</tr>'


def _breakable(name: str) -> str:
    return text(name).replace("_", "_<wbr>").replace("-", "-<wbr>")


Cell = tuple[str | float, str]
"""(what to sort by, what to show)."""


def difference(result: Result | None) -> Cell:
    """The difference from the origin with its interval; a claim is set in bold."""
    found = result.difference if result else None
    if result is None or found is None or result.reading is None:
        return "", ""
    test = result.reading.test
    shown = f"{found:+.4f}".replace("-", "−")
    if test is None:
        return f"{found:.6f}", f"{shown}<small>one seed</small>"
    interval = f"{test.low:+.4f} to {test.high:+.4f}".replace("-", "−")
    if result.comparison and result.comparison.q is not None:
        interval += f", {text(p_value(result.comparison.q, 'q'))}"
    if test.p < SIGNIFICANT:
        kind = "better" if test.difference < 0 else "worse"
        shown = f'<b class="grug-{kind}">{shown} {kind}</b>'
    return f"{found:.6f}", f"{shown}<small>{interval}</small>"


def held_out(result: Result | None, budgets: Sequence[tuple[str | None, str, int]]) -> Cell:
    """Held-out bits per byte, with the steps and tokens after which they were measured.

    What sorts them keeps together those that compare.
    """
    if result is None or result.held_out is None:
        return "", ""
    values, run = result.held_out, result.group.runs[0]
    spread = f" ± {values.spread:.3f}" if values.spread is not None else ""
    seeds = f"{values.n} seed{'s' if values.n > 1 else ''}"
    after = f"{run.steps:,} steps, {amount('tokens', run.tokens)}, {seeds}"
    order = 1000 * budgets.index(result.budget) + values.mean
    return f"{order:.6f}", f"{values.mean:.3f}{spread}<small>{after}</small>"


def flops(result: Result | None) -> Cell:
    """FLOPs per token, of the origin's."""
    ratio = result.flops_ratio if result else None
    return ("", "") if ratio is None else (f"{ratio:.6f}", f"×{ratio:.3f}")


def cost(result: Result | None) -> Cell:
    """Time on devices, and the arithmetic that it went into."""
    if result is None:
        return "", ""
    devices = sorted({f"{r.devices['count']} × {r.devices['kind']}" for r in result.group.runs})
    spent = f"{amount('time', result.device_seconds)}<small>{text(', '.join(devices))}"
    if result.flop is not None:
        spent += f", {amount('FLOPs', result.flop)}"
    return f"{result.device_seconds:.3f}", f"{spent}</small>"
