"""Compares a variant's runs with its origin's at equal tokens, equal FLOPs and equal time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.common.jsonio import json_line
from tools.common.quantities import flop, scaled
from tools.runs import numerics, origins
from tools.runs.origins import Origin
from tools.runs.run_summary import Run, experiment_key, flat
from tools.runs.stats import PAIRED, SIGNIFICANT, Sample, Test, paired, value_at, welch

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
    repeated: tuple[str, ...] = ()
    """Of which seeds there are several records, and which was taken."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that all of them share, by flat names such as `model.d_model`."""
        return flat(self.runs[0].experiment())

    @property
    def sources_digest(self) -> str:
        """The digest of the sources that all of them ran."""
        return self.runs[0].sources_digest

    @property
    def origin(self) -> Origin | None:
        """Which state of its origin their summaries pin, if any."""
        return self.runs[0].origin


@dataclass(frozen=True)
class Pair:
    """The values of two runs of equal seed, which read the same data in the same order."""

    seed: int
    variant: float
    origin: float

    @property
    def difference(self) -> float:
        """The variant's value less the origin's: below zero, the variant is better."""
        return self.variant - self.origin


@dataclass(frozen=True)
class Reading:
    """Both sides at the point where they have spent the same amount of one resource.

    `pairs` holds the values that the test is of if its method is paired; else those that there are.
    """

    axis: str
    spent: float
    metric: str
    variant: Sample
    origin: Sample
    test: Test | None
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A variant's group and its origin's. A reading that cannot be made is a sentence instead."""

    variant: Group
    origin: Group
    readings: dict[str, Reading | str]
    differs: tuple[str, ...]
    """Settings that differ: `learning_rate 0.01 → 0.02`, or `window 64, base has none`."""
    pin: Origin
    """Which state of the origin it is, and who says so: the ledger, or a person."""
    q: float | None = None
    """The q-value of the reading at equal tokens among the ledger's claims; None without a test, or
    for a comparison that is none of them."""
    is_asked: bool = False
    """Whether a person asked for this origin, in place of the one that the summaries pin."""

    @property
    def against(self) -> str:
        """The origin's state and sources: `base as of 588692ca12c0 (sources 25fd9401de49)`."""
        return f"{origins.label(self.pin)} (sources {origins.short(self.origin.sources_digest)})"


@dataclass(frozen=True)
class Refusal:
    """A variant's group that no claim can be made of, and why not."""

    variant: Group
    reason: str

    def __str__(self) -> str:
        return f"no claim: {self.reason}"


def groups(runs: Iterable[Run], *, of_origin: bool = False) -> list[Group]:
    """The runs of one variant, grouped: equal settings, data, sources, packages, flags and origin.

    Runs with the same seed are not independent: only the longest counts, of equally long ones the
    first by name, and the group says so. The groups with most seeds
    come first, then those with most tokens. Of an origin (`of_origin`), what its own runs are
    compared with does not matter.
    """
    by_key: dict[str, dict[int, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: (-run.tokens, run.run)):
        key = experiment_key(run) + ("" if of_origin else json_line(_compared_with(run)))
        by_key.setdefault(key, {}).setdefault(run.seed, []).append(run)
    keyed = [(key, _group(runs)) for key, runs in by_key.items()]
    keyed.sort(key=lambda pair: (-len(pair[1].runs), -pair[1].runs[0].tokens, pair[0]))
    return [group for _, group in keyed]


def _group(by_seed: Mapping[int, Sequence[Run]]) -> Group:
    """The first run of each seed."""
    taken = tuple(by_seed[seed][0] for seed in sorted(by_seed))
    repeated = []
    for run in taken:
        if others := by_seed[run.seed][1:]:
            unlike = any(_losses(other) != _losses(run) for other in others)
            how = ", with other losses" if unlike else ", with the same losses"
            names = ", ".join(other.run for other in others)
            repeated.append(
                f"{run.variant} has {len(others) + 1} records of seed {run.seed}{how}: "
                f"{run.run} is taken, {names} left out"
            )
    return Group(taken[0].variant, taken, tuple(repeated))


def _losses(run: Run) -> list[tuple[float, ...]]:
    """What a run measured at which steps, without the time that it took."""
    return [(point[0], *point[3:]) for points in (run.curve, run.heldout) for point in points]


def _compared_with(run: Run) -> list[str]:
    return [run.origin["name"], *run.origin["digests"]] if run.origin else []


def differences(variant: Group, origin: Group) -> tuple[str, ...]:
    """Settings, packages and flags that differ; also a setting that one side alone has."""
    ours, theirs = variant.settings, origin.settings
    changes = []
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in theirs:
            changes.append(f"{key} {_short(ours[key])}, {origin.variant} has none")
        elif key not in ours:
            changes.append(f"{key} {_short(theirs[key])} of {origin.variant}, "
                           f"{variant.variant} has none")  # fmt: skip
        elif ours[key] != theirs[key]:
            changes.append(f"{key} {_short(theirs[key])} → {_short(ours[key])}")
    if variant.runs[0].lock != origin.runs[0].lock:
        changes.append("packages (another lock)")
    changes += numerics.differences(variant.runs[0].numerics, origin.runs[0].numerics)
    return tuple(changes)


def _short(value: Any) -> str:
    return str(value)[:40]


def outcomes(
    runs: Iterable[Run], others: Iterable[Run], named: Origin | None = None
) -> list[Comparison | Refusal]:
    """Each group of a variant with the origin that its summaries pin, or why there is none.

    Args:
        runs: the variant's runs.
        others: runs of its origin; those of other experiments among them do not matter.
        named: the origin that a person names, in place of the pinned one.
    """
    others = list(others)
    found: list[Comparison | Refusal] = []
    for group in groups(runs):
        pin = named or group.origin
        origin = _match(group, others, pin) if pin else _UNPINNED
        if pin is None or isinstance(origin, str):
            found.append(Refusal(group, str(origin)))
            continue
        readings = {axis: read(axis, group, origin) for axis in AXES}
        differs = differences(group, origin)
        asked = named is not None
        found.append(Comparison(group, origin, readings, differs, pin, is_asked=asked))
    return found


_UNPINNED = (
    "which state of its origin it was copied from is not recorded; name one with "
    "--against ORIGIN@RUN or ORIGIN@COMMIT"
)


def compare(runs: Iterable[Run], others: Iterable[Run]) -> list[Comparison]:
    """The comparisons among the `outcomes`."""
    return [found for found in outcomes(runs, others) if isinstance(found, Comparison)]


def _match(group: Group, others: Iterable[Run], origin: Origin) -> Group | str:
    """The origin's group to compare with, or why there is none.

    Where runs of the same sources had other settings, the group is that with the most alike ones.
    """
    name, shown = origin["name"], origins.label(origin)
    same = [r for r in others if r.variant == name and r.sources_digest in origin["digests"]]
    remedy = f"record one, or name another with --against {name}@RUN"
    if not same:
        return f"no run of {shown} is recorded; {remedy}"
    data = group.runs[0].data_digest
    candidates = groups([run for run in same if data and run.data_digest == data], of_origin=True)
    if not candidates:
        return f"no run of {shown} is on the same data; {remedy}"
    # min returns the first of equals, which has most seeds
    return min(candidates, key=lambda other: len(differences(group, other)))


def read(axis: str, variant: Group, origin: Group) -> Reading | str:
    """Both groups at the largest amount of `axis` that every run has spent.

    A sentence with the reason if there is no such reading. If each of the variant's seeds has its
    pair, the test is of the pairs, and the origin's other seeds are left out.
    """
    repeated = [*variant.repeated, *origin.repeated]
    notes, origin, is_paired = _paired_seeds(variant, origin)
    notes = repeated + notes
    runs = [*variant.runs, *origin.runs]
    if axis == "FLOPs" and not all(run.flops_per_token for run in runs):
        return "a run does not tell its FLOPs per token"
    if axis == "time" and (reason := _unlike_times(runs)):
        return reason
    measured_over = sorted({run.measured_over for run in runs})
    unlike = len(measured_over) > 1
    for metric in METRICS:
        if metric == HELD_OUT and unlike:
            continue
        values = _values(axis, metric, runs)
        if values is None:
            continue
        spent, numbers = values
        seeds = len(variant.runs)
        first, second = Sample(tuple(numbers[:seeds])), Sample(tuple(numbers[seeds:]))
        notes += [n for group in (variant, origin) if (n := _unfinished(axis, spent, group))]
        if unlike:
            notes.append(f"held-out values over {' and '.join(measured_over)} do not compare")
        test = paired(first, second) if is_paired else welch(first, second)
        pairs = _pairs(variant, origin, numbers)
        return Reading(axis, spent, metric, first, second, test, tuple(notes), pairs)
    return "no measure that all runs have there"


MOST_SPREAD = 0.25
"""Above this `step_time_spread`, other work took a part of a run's time."""


def _unlike_times(runs: Sequence[Run]) -> str | None:
    """Why the times of runs do not compare; None if they do."""
    if branches := [run.run for run in runs if run.ancestors]:
        return f"{branches[0]} is a branch, whose time is that of its own steps alone"
    devices = {f"{run.devices['count']} × {run.devices['kind']}" for run in runs}
    if len(devices) > 1:
        return f"runs on different devices ({', '.join(sorted(devices))})"
    silent = [run.run for run in runs if run.host is None or run.step_time_spread is None]
    if silent:
        return f"{silent[0]} does not tell its processor, its cores and how evenly its steps ran"
    hosts = {f"{run.host['processor']}, {run.host['cores']} cores" for run in runs if run.host}
    if len(hosts) > 1:
        return f"runs on different processors ({'; '.join(sorted(hosts))})"
    spread, worst = max((run.step_time_spread or 0.0, run.run) for run in runs)
    if spread > MOST_SPREAD:
        return (
            f"the steps of {worst} took unequally long (from the 10th to the 90th percentile "
            f"{spread:.0%} of the median, more than {MOST_SPREAD:.0%}): other work took a part of "
            "its time"
        )
    return None


def _values(axis: str, metric: str, runs: Sequence[Run]) -> tuple[float, list[float]] | None:
    """(the amount that all have spent, the metric of each run there); None if a run lacks it."""
    curves = [
        [(AXES[axis](run, point), value) for point, value in METRICS[metric](run)] for run in runs
    ]
    if not all(curves):
        return None
    spent = min(curve[-1][0] for curve in curves)
    values = [value_at(curve, spent) for curve in curves]
    if any(value is None for value in values):
        return None  # one run's first evaluation comes after another's end
    return spent, [value for value in values if value is not None]


def _order(run: Run) -> tuple[Any, ...]:
    """What fixes which tokens a run reads, and when."""
    names = ("batch_size", "sequence_length")
    return run.seed, run.data_digest, *(run.config.get(name) for name in names)


def _paired_seeds(variant: Group, origin: Group) -> tuple[list[str], Group, bool]:
    """(notes, the origin's group to compare with, whether each seed of the variant is paired)."""
    orders = {_order(run) for run in origin.runs}
    lacking = [str(run.seed) for run in variant.runs if _order(run) not in orders]
    if lacking:
        seeds = f"seed{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
        remedy = f"{origin.variant} has no run of the same data in the same order"
        return [f"not paired: for {seeds} {remedy}"], origin, False
    ours = {_order(run) for run in variant.runs}
    matching = tuple(run for run in origin.runs if _order(run) in ours)
    left = [str(run.seed) for run in origin.runs if _order(run) not in ours]
    if not left:
        return [], origin, True
    seeds = f"seed{'s' * (len(left) > 1)} {', '.join(left)}"
    note = f"without {seeds} of {origin.variant}, which {variant.variant} has no pair of"
    return [note], Group(origin.variant, matching), True


def _pairs(variant: Group, origin: Group, numbers: Sequence[float]) -> tuple[Pair, ...]:
    """The pairs of the runs; `numbers` are the values of the variant's runs, then the origin's."""
    theirs = {_order(r): x for r, x in zip(origin.runs, numbers[len(variant.runs) :], strict=True)}
    return tuple(
        Pair(run.seed, value, theirs[_order(run)])
        for run, value in zip(variant.runs, numbers, strict=False)
        if _order(run) in theirs
    )


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


def sentence(reading: Reading | str, variant: str, origin: str, q: float | None = None) -> str:
    """The claim that a reading allows, or that it allows none: the verdict; then the numbers.

    Args:
        reading: both sides at one point, or why they cannot be read.
        variant: the name of the one.
        origin: the name of the other.
        q: the claim's q-value among those of the ledger.
    """
    head = verdict(reading, variant)
    if isinstance(reading, str):
        return head
    v, o, test = reading.variant, reading.origin, reading.test
    means = f"{variant} {mean_text(v)}, {origin} {mean_text(o)} {reading.metric}"
    if test is None:
        return f"{head}; {better(v.mean - o.mean, reading.metric)}; {means}"
    of = f"paired t-test of {v.n} pairs of seeds"
    if test.method != PAIRED:
        of = f"Welch's t-test of {v.n} and {o.n} seeds"
    interval = f"95% interval {between(test.low, test.high)}"
    values = p_value(test.p) if q is None else f"{p_value(test.p)}, {p_value(q, 'q')}"
    return f"{head}; {interval}, {of}, {values}; {means}"


def verdict(reading: Reading | str, variant: str) -> str:
    """What a reading allows to be said of a variant: `moe is better by 0.012 bits per byte`."""
    if isinstance(reading, str):
        return f"no claim: {reading}"
    test = reading.test
    if min(reading.variant.n, reading.origin.n) < 2:
        return "one seed: no claim"
    if test is None:
        return "no claim: the seeds all differ alike, as copies of a run do"
    if test.p < SIGNIFICANT:
        return f"{variant} is {better(test.difference, reading.metric)}"
    return f"no difference shown ({better(test.difference, reading.metric)})"


def better(difference: float, metric: str) -> str:
    """A difference in words; less is better: `better by 0.0120 bits per byte`, `equal`."""
    if not difference:
        return "equal"
    unit = "bits per byte" if metric.endswith("byte") else "nats per token"
    return f"{'better' if difference < 0 else 'worse'} by {abs(difference):.4f} {unit}"


def between(low: float, high: float) -> str:
    """An interval in words, the better end first: `0.0050 to 0.0196 better`."""
    first, last = (f"{abs(end):.4f} {'better' if end < 0 else 'worse'}" for end in (low, high))
    if (low < 0) == (high < 0):
        return f"{first.split(' ')[0]} to {last}"
    return f"{first} to {last}"


def mean_text(sample: Sample) -> str:
    """`2.0490 ± 0.0110 (n = 3)`."""
    spread = f" ± {sample.spread:.4f}" if sample.spread is not None else ""
    return f"{sample.mean:.4f}{spread} (n = {sample.n})"


def p_value(p: float, name: str = "p") -> str:
    """A p-value as text: `p = 0.012`, or `p < 0.0001`; `name` is `q` for a q-value."""
    return f"{name} < 0.0001" if p < 1e-4 else f"{name} = {p:.2g}"


def amount(axis: str, value: float) -> str:
    """An amount as text: `2.66M tokens`, `10.2 TFLOP`, or for seconds `6 min 0 s`."""
    if axis == "tokens":
        return f"{scaled(value, 'KMBT')} tokens"
    if axis == "FLOPs":
        return flop(value)
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    return f"{int(value // 60)} min {int(value % 60)} s"
