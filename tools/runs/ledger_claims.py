"""All claims that the recorded runs allow, each with its q-value among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tools.ledger.ledger import Entry
from tools.runs.compare_runs import Comparison, Reading, Refusal, outcomes
from tools.runs.run_summary import Run
from tools.runs.stats import q_values


def of_ledger(
    entries: Iterable[Entry], runs: Iterable[Run]
) -> dict[str, list[Comparison | Refusal]]:
    """What can be said of each experiment that has recorded runs, by its name.

    A claim's q-value is over the claims at equal tokens of the whole ledger, those that are no
    difference among them: who tries twenty ideas finds one with p below 0.05 by chance.

    Args:
        entries: the ledger.
        runs: all summaries.
    """
    runs = list(runs)
    found: dict[str, list[Comparison | Refusal]] = {}
    for entry in entries:
        own = [run for run in runs if run.variant == entry.name]
        if own and entry.origin != "none":
            found[entry.name] = outcomes(own, runs)
    tested = {id(one): p for group in found.values() for one in group if (p := _p(one)) is not None}
    q_of = dict(zip(tested, q_values(list(tested.values())), strict=True))
    return {name: [_with(one, q_of.get(id(one))) for one in group] for name, group in found.items()}


def _p(found: Comparison | Refusal) -> float | None:
    """The p-value at equal tokens; None without a test."""
    reading = found.readings["tokens"] if isinstance(found, Comparison) else None
    return reading.test.p if isinstance(reading, Reading) and reading.test else None


def _with(found: Comparison | Refusal, q: float | None) -> Comparison | Refusal:
    return dataclasses.replace(found, q=q) if isinstance(found, Comparison) else found
