"""What recorded runs measured, as the ledger says it: the bracketed part of an entry's results.

People write the rest of that field; recording runs again replaces the brackets alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tools.ledger.edit import changed
from tools.ledger.ledger import Entry
from tools.runs.compare_runs import METRICS, Group, amount, compare, groups, mean_text, sentence
from tools.runs.run_summary import Run
from tools.runs.stats import Sample

_RECORDED = re.compile(r"\[recorded: [^\]]*\]")


def with_results(text: str, entry: Entry, runs: Iterable[Run]) -> str:
    """The ledger's text with what the runs of the entry, and of its origin, say."""
    runs = list(runs)
    ours, theirs = ([run for run in runs if run.variant == n] for n in (entry.name, entry.origin))
    said = f"[recorded: {measured(entry, ours, theirs)}]"
    before = entry.fields.get("results", "")
    after = _RECORDED.sub(lambda _: said, before, count=1)
    if not _RECORDED.search(before):
        after = f"{before} {said}".strip()
    return text if after == before else changed(text, entry, {"results": after}, behind="verdict")


def measured(entry: Entry, runs: Iterable[Run], origin_runs: Iterable[Run]) -> str:
    """The group of most seeds, against the origin's at equal tokens where they share data."""
    runs = list(runs)
    group = groups(runs)[0]
    against = next((each for each in compare(runs, origin_runs) if each.variant == group), None)
    if against is None:
        return f"{_shape(group)}; {_end(group)}"
    return f"{_shape(group)}; {sentence(against.readings['tokens'], entry.name, entry.origin)}"


def _shape(group: Group) -> str:
    longest = max(group.runs, key=lambda run: run.steps)
    seeds = ", ".join(str(run.seed) for run in group.runs)
    what = f"{longest.steps:,} steps, {amount('tokens', longest.tokens)}"
    return f"{what}, seed{'s' * (len(group.runs) > 1)} {seeds}"


def _end(group: Group) -> str:
    """The last value of the first measure that every run has."""
    for metric, points_of in METRICS.items():
        curves = [points_of(run) for run in group.runs]
        if all(curves):
            return f"{mean_text(Sample(tuple(curve[-1][1] for curve in curves)))} {metric}"
    raise AssertionError("a summary has a curve")
