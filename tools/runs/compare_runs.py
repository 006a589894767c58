"""A variant's runs against its origin's: at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.runs.run_summary import Run, flat
from tools.runs.stats import Sample, Test, value_at, welch

SIGNIFICANT = 0.05

Axis = Callable[[Run, Sequence[float]], float]
"""How much of something a point of a curve (step, tokens, seconds, ...) has spent."""
AXES: dict[str, Axis] = {
    "tokens": lambda run, point: point[1],
    "FLOPs": lambda run, point: point[1] * (run.flops_per_token or 0.0),
    "time": lambda run, point: point[2],
}
# Held-out bits per byte first; the first that every run of both sides has is taken.
METRICS: dict[str, Callable[[Run], list[tuple[Sequence[float], float]]]] = {
    "held-out bits per byte": lambda run: [(point, point[4]) for point in run.heldout],
    "training loss": lambda run: [(point, point[3]) for point in run.curve],
}


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed, one per seed, by seed."""

    variant: str
    runs: tuple[Run, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What all of them share, flat: `model.d_model`."""
        return flat(self.runs[0].experiment())


@dataclass(frozen=True)
class Reading:
    """Both sides where they have spent equally much of one thing."""

    axis: str
    at: float
    metric: str
    variant: Sample
    origin: Sample
    test: Test | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A variant's group against its origin's. A reading is a sentence where there can be none."""

    variant: Group
    origin: Group
    readings: dict[str, Reading | str]
    differs: tuple[str, ...]
    """Settings that both have, with other values: `learning_rate 0.01 -> 0.02`."""


def groups(runs: Iterable[Run]) -> list[Group]:
    """The runs of one variant, grouped: equal settings, data, sources and packages.

    Of two runs with one seed the longer counts; they are not independent. Most seeds come first,
    then most tokens.
    """
    by_key: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: (-run.tokens, run.run)):
        parts = [run.experiment(), run.data_digest, run.sources_digest, run.lock]
        key = json.dumps(parts, sort_keys=True)
        by_key.setdefault(key, {}).setdefault(run.seed, run)
    found = [
        (key, Group(runs[min(runs)].variant, tuple(runs[seed] for seed in sorted(runs))))
        for key, runs in by_key.items()
    ]
    found.sort(key=lambda pair: (-len(pair[1].runs), -pair[1].runs[0].tokens, pair[0]))
    return [group for _, group in found]


def differences(variant: Group, origin: Group) -> tuple[str, ...]:
    """Settings and packages that differ; what only one side has is its own change."""
    ours, theirs = variant.settings, origin.settings
    found = [
        f"{key} {_short(theirs[key])} → {_short(ours[key])}"
        for key in sorted(ours.keys() & theirs.keys())
        if ours[key] != theirs[key]
    ]
    if variant.runs[0].lock != origin.runs[0].lock:
        found.append("packages (another lock)")
    return tuple(found)


def _short(value: Any) -> str:
    return str(value)[:40]


def compare(runs: Iterable[Run], origin_runs: Iterable[Run]) -> list[Comparison]:
    """Each group of a variant against the origin's most alike group on the same data."""
    candidates = groups(origin_runs)
    found = []
    for group in groups(runs):
        data = group.runs[0].data_digest
        same_data = [g for g in candidates if data and g.runs[0].data_digest == data]
        if same_data:  # min keeps the first of equals: most seeds
            origin = min(same_data, key=lambda other: len(differences(group, other)))
            readings = {axis: read(axis, group, origin) for axis in AXES}
            found.append(Comparison(group, origin, readings, differences(group, origin)))
    return found


def read(axis: str, variant: Group, origin: Group) -> Reading | str:
    """Both groups at the most of `axis` that every run has spent, or why that can't be."""
    runs = [*variant.runs, *origin.runs]
    if axis == "FLOPs" and not all(run.flops_per_token for run in runs):
        return "a run does not tell its FLOPs a token"
    hardware = {f"{run.devices['count']} × {run.devices['kind']}" for run in runs}
    if axis == "time" and len(hardware) > 1:
        return f"runs on different devices ({', '.join(sorted(hardware))})"
    for metric, points_of in METRICS.items():
        curves = [
            [(AXES[axis](run, point), value) for point, value in points_of(run)] for run in runs
        ]
        if not all(curves):
            continue
        at = min(curve[-1][0] for curve in curves)
        values = [value_at(curve, at) for curve in curves]
        if any(value is None for value in values):
            continue  # the first evaluation of one comes after the end of another
        numbers = [value for value in values if value is not None]
        seeds = len(variant.runs)
        first, second = Sample(tuple(numbers[:seeds])), Sample(tuple(numbers[seeds:]))
        notes = tuple(note for group in (variant, origin) if (note := _unfinished(axis, at, group)))
        return Reading(axis, at, metric, first, second, welch(first, second), notes)
    return "no measure that all runs have there"


def _unfinished(axis: str, at: float, group: Group) -> str | None:
    """A word of caution where runs are read before the end of their schedule."""
    shares = []
    for run in group.runs:
        end = run.curve[-1]
        spent = AXES[axis](run, (run.steps, run.tokens, run.seconds, end[3]))
        shares.append(at / spent * run.steps / max(run.config.get("steps", run.steps), 1))
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
    """A p-value in words."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def amount(axis: str, value: float) -> str:
    """`2.66M tokens`, `2.2e+13 FLOPs`, `6 min 0 s`."""
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
