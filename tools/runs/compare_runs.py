"""Compares a variant's runs with its origin's at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.runs import numerics
from tools.runs.run_summary import Run, flat
from tools.runs.stats import Sample, Test, value_at, welch

SIGNIFICANT = 0.05

Axis = Callable[[Run, Sequence[float]], float]
"""The amount of a resource spent up to a point (step, tokens, seconds, ...) of a run's curve."""
AXES: dict[str, Axis] = {
    "tokens": lambda run, point: point[1],
    "FLOPs": lambda run, point: point[1] * (run.flops_per_token or 0.0),
    "time": lambda run, point: point[2],
}
# In order of preference: the first metric that every run of both sides has is used.
HELD_OUT = "held-out bits per byte"
METRICS: dict[str, Callable[[Run], list[tuple[Sequence[float], float]]]] = {
    HELD_OUT: lambda run: [(point, point[4]) for point in run.heldout],
    "training loss": lambda run: [(point, point[3]) for point in run.curve],
}


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed: one per seed, in order of seeds."""

    variant: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all of them share, by flat names such as `model.d_model`."""
        return flat(self.runs[0].experiment())


@dataclass(frozen=True)
class Reading:
    """Both sides at the point where they have spent the same amount of one resource."""

    axis: str
    spent: float
    metric: str
    variant: Sample
    origin: Sample
    test: Test | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A variant's group and its origin's. A reading that cannot be made is a sentence instead."""

    variant: Group
    origin: Group
    readings: dict[str, Reading | str]
    differs: tuple[str, ...]
    """Settings that both have with different values: `learning_rate 0.01 → 0.02`."""


def groups(runs: Iterable[Run]) -> list[Group]:
    """The runs of one variant, grouped: equal settings, data, sources, packages and flags.

    Runs with the same seed are not independent: only the longest counts. The groups with most seeds
    come first, then those with most tokens.
    """
    by_key: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (-run.tokens, run.run)):
        parts = [run.experiment(), run.data_digest, run.sources_digest, run.lock, run.numerics]
        key = json.dumps(parts, sort_keys=True)
        by_key.setdefault(key, {}).setdefault(run.seed, run)
    keyed = [
        (key, Group(runs[min(runs)].variant, tuple(runs[seed] for seed in sorted(runs))))
        for key, runs in by_key.items()
    ]
    keyed.sort(key=lambda pair: (-len(pair[1].runs), -pair[1].runs[0].tokens, pair[0]))
    return [group for _, group in keyed]


def differences(variant: Group, origin: Group) -> tuple[str, ...]:
    """Settings and packages that differ. A setting that only one side has is left out."""
    ours, theirs = variant.settings, origin.settings
    changes = [
        f"{key} {_short(theirs[key])} → {_short(ours[key])}"
        for key in sorted(ours.keys() & theirs.keys())
        if ours[key] != theirs[key]
    ]
    if variant.runs[0].lock != origin.runs[0].lock:
        changes.append("packages (another lock)")
    changes += numerics.differences(variant.runs[0].numerics, origin.runs[0].numerics)
    return tuple(changes)


def _short(value: Any) -> str:
    return str(value)[:40]


def compare(runs: Iterable[Run], origin_runs: Iterable[Run]) -> list[Comparison]:
    """Each group of a variant with the origin's most similar group on the same data."""
    candidates = groups(origin_runs)
    comparisons = []
    for group in groups(runs):
        data = group.runs[0].data_digest
        same_data = [g for g in candidates if data and g.runs[0].data_digest == data]
        if same_data:  # min returns the first of equals, which has most seeds
            origin = min(same_data, key=lambda other: len(differences(group, other)))
            readings = {axis: read(axis, group, origin) for axis in AXES}
            comparisons.append(Comparison(group, origin, readings, differences(group, origin)))
    return comparisons


def read(axis: str, variant: Group, origin: Group) -> Reading | str:
    """Both groups at the largest amount of `axis` that every run has spent.

    A sentence with the reason if there is no such reading.
    """
    runs = [*variant.runs, *origin.runs]
    if axis == "FLOPs" and not all(run.flops_per_token for run in runs):
        return "a run does not tell its FLOPs per token"
    hardware = {f"{run.devices['count']} × {run.devices['kind']}" for run in runs}
    if axis == "time" and len(hardware) > 1:
        return f"runs on different devices ({', '.join(sorted(hardware))})"
    measured_over = sorted({run.measured_over for run in runs})
    unlike = len(measured_over) > 1
    for metric, points_of in METRICS.items():
        if metric == HELD_OUT and unlike:
            continue
        curves = [
            [(AXES[axis](run, point), value) for point, value in points_of(run)] for run in runs
        ]
        if not all(curves):
            continue
        spent = min(curve[-1][0] for curve in curves)
        values = [value_at(curve, spent) for curve in curves]
        if any(value is None for value in values):
            continue  # one run's first evaluation comes after another's end
        numbers = [value for value in values if value is not None]
        seeds = len(variant.runs)
        first, second = Sample(tuple(numbers[:seeds])), Sample(tuple(numbers[seeds:]))
        notes = [n for group in (variant, origin) if (n := _unfinished(axis, spent, group))]
        if unlike:
            notes.append(f"held-out values over {' and '.join(measured_over)} do not compare")
        return Reading(axis, spent, metric, first, second, welch(first, second), tuple(notes))
    return "no measure that all runs have there"


def _unfinished(axis: str, spent_by_all: float, group: Group) -> str | None:
    """A note of caution if runs are read before the end of their schedule; else None."""
    shares = []
    for run in group.runs:
        end = run.curve[-1]
        spent = AXES[axis](run, (run.steps, run.tokens, run.seconds, end[3]))
        shares.append(spent_by_all / spent * run.steps / max(run.config.get("steps", run.steps), 1))
    if min(shares) > 0.98:
        return None
    return (
        f"{group.variant} is read at {min(shares):.0%} of its schedule, where its learning rate "
        "may not have decayed"
    )


def sentence(reading: Reading | str, variant: str, origin: str) -> str:
    """The claim that a reading allows, in one sentence, or that it allows none."""
    if isinstance(reading, str):
        return f"no claim: {reading}"
    v, o = reading.variant, reading.origin
    unit = "bits per byte" if reading.metric.endswith("byte") else "nats per token"
    means = f"{variant} {mean_text(v)}, {origin} {mean_text(o)} {reading.metric}"
    if min(v.n, o.n) < 2:
        return f"one seed: no claim; {means}, difference {v.mean - o.mean:+.4f}"
    if reading.test is None:
        return f"no claim, the seeds do not differ; {means}"
    test = reading.test
    verdict = "no difference shown"
    if test.p < SIGNIFICANT:
        verdict = f"{variant} is {'lower' if test.difference < 0 else 'higher'}"
    return (
        f"{verdict}; difference {test.difference:+.4f} {unit} (95% interval {test.low:+.4f} to "
        f"{test.high:+.4f}), n = {v.n} and {o.n}, {p_value(test.p)}; {means}"
    )


def mean_text(sample: Sample) -> str:
    """`2.0490 ± 0.0110 (n = 3)`."""
    spread = f" ± {sample.spread:.4f}" if sample.spread is not None else ""
    return f"{sample.mean:.4f}{spread} (n = {sample.n})"


def p_value(p: float) -> str:
    """A p-value as text: `p = 0.012`, or `p < 0.0001`."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def amount(axis: str, value: float) -> str:
    """An amount as text: `2.66M tokens`, `2.2e+13 FLOPs`, or for seconds `6 min 0 s`."""
    if axis == "tokens":
        for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
            if value >= size:
                return f"{value / size:.3g}{letter} tokens"
        return f"{value:.0f} tokens"
    if axis == "FLOPs":
        return f"{value:.3g} FLOPs"
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    return f"{int(value // 60)} min {int(value % 60)} s"
