"""The results of recorded runs in the ledger: the bracketed part of an entry's field `results`.

People write the rest of that field; recording runs again replaces only the brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tools.ledger.edit import changed
from tools.ledger.ledger import Entry
from tools.runs.compare_runs import (
    METRICS,
    Comparison,
    Group,
    amount,
    mean_text,
    outcomes,
    sentence,
)
from tools.runs.run_summary import Run
from tools.runs.stats import Sample

_RECORDED = re.compile(r"\[recorded: [^\]]*\]")


def are_recorded(entry: Entry) -> bool:
    """Whether an entry has results of recorded runs."""
    return bool(_RECORDED.search(entry.results))


def with_results(text: str, entry: Entry, runs: Iterable[Run]) -> str:
    """The ledger's text with the results of an entry's runs, compared with its origin's."""
    recorded = f"[recorded: {measured(entry, list(runs))}]"
    before = entry.fields.get("results", "")
    after = _RECORDED.sub(lambda _: recorded, before, count=1)
    if not _RECORDED.search(before):
        after = f"{before} {recorded}".strip()
    return text if after == before else changed(text, entry, {"results": after}, after="verdict")


def untrue(entry: Entry, entries: Iterable[Entry], runs: Sequence[Run]) -> str:
    """What an entry should say in the brackets, where it says something else; empty if it is true.

    Args:
        entry: the entry; one without recorded results says nothing.
        entries: the ledger. Results may say the earlier names of experiments that were renamed.
        runs: all summaries.
    """
    had = _RECORDED.findall(entry.results)
    if not had:
        return ""
    if len(had) > 1:
        return "has recorded results twice: remove those that are not of its runs"
    if not any(run.variant == entry.name for run in runs):
        return f"has recorded results, and no run of {entry.name} is recorded: remove the brackets"
    true = f"[recorded: {measured(entry, runs)}]"
    said = had[0]
    for name, earlier in ((other.name, n) for other in entries for n in other.earlier_names):
        said = re.sub(rf"(?<![\w-]){re.escape(earlier)}(?![\w-])", name, said)
    return "" if true in (had[0], said) else f"its runs give other results: write {true}"


def measured(entry: Entry, runs: Sequence[Run]) -> str:
    """A sentence on the group with most seeds; compared with its origin at equal tokens, if any."""
    found = outcomes([run for run in runs if run.variant == entry.name], runs)[0]
    shape = _shape(found.variant)
    repeated = found.variant.repeated
    if isinstance(found, Comparison):
        repeated += found.origin.repeated
    shape = "; ".join((shape, *repeated))
    if isinstance(found, Comparison):
        claim = sentence(found.readings["tokens"], entry.name, found.origin.variant)
        return f"{shape}; {claim}; against {found.against}"
    if entry.origin == "none":
        return f"{shape}; {_end(found.variant)}"
    return f"{shape}; {_end(found.variant)}; {found}"


def _shape(group: Group) -> str:
    longest = max(group.runs, key=lambda run: run.steps)
    seeds = ", ".join(str(run.seed) for run in group.runs)
    length = f"{longest.steps:,} steps, {amount('tokens', longest.tokens)}"
    branch = f", branched off at step {longest.branch_step:,}" if longest.ancestors else ""
    return f"{length}, seed{'s' * (len(group.runs) > 1)} {seeds}{branch}"


def _end(group: Group) -> str:
    """The last value of the first metric that every run has."""
    for metric, points_of in METRICS.items():
        curves = [points_of(run) for run in group.runs]
        if all(curves):
            return f"{mean_text(Sample(tuple(curve[-1][1] for curve in curves)))} {metric}"
    raise AssertionError("a summary has a curve")
