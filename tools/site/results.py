"""What an experiment's runs come to: its headline against the origin, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.runs.compare_runs import Comparison, Group, Reading, Refusal, groups
from tools.runs.run_summary import Run
from tools.runs.stats import Sample


@dataclass(frozen=True)
class Result:
    """The runs that an experiment is judged by: those of the settings with most seeds."""

    group: Group
    comparison: Comparison | None
    """With the origin's runs; None if it has none on the same data."""

    @property
    def reading(self) -> Reading | None:
        """Both sides at equal tokens; None if there is no such reading."""
        reading = self.comparison.readings.get("tokens") if self.comparison else None
        return reading if isinstance(reading, Reading) else None

    @property
    def difference(self) -> float | None:
        """The variant's mean less the origin's in bits per byte: below zero, it is better."""
        reading = self.reading
        if reading is None or not reading.metric.endswith("byte"):
            return None
        return (
            reading.test.difference if reading.test else reading.variant.mean - reading.origin.mean
        )

    @property
    def held_out(self) -> Sample | None:
        """Held-out bits per byte at the end, one per seed; None if a run was not evaluated."""
        ends = [run.final["heldout_bpb"] for run in self.group.runs]
        known = tuple(end for end in ends if end is not None)
        return Sample(known) if len(known) == len(ends) else None

    @property
    def budget(self) -> tuple[str | None, str, int]:
        """What must be equal for held-out values to be set side by side: data, measure, tokens."""
        run = self.group.runs[0]
        return run.data_digest, run.measured_over, run.tokens

    @property
    def flops_ratio(self) -> float | None:
        """FLOPs per token, of the origin's; None if either is not known."""
        if not self.comparison:
            return None
        sides = (self.comparison.variant, self.comparison.origin)
        ours, theirs = (side.runs[0].flops_per_token for side in sides)
        return ours / theirs if ours and theirs else None

    @property
    def device_seconds(self) -> float:
        """Seconds of training times devices, over all seeds."""
        return sum(run.seconds * run.devices["count"] for run in self.group.runs)

    @property
    def flop(self) -> float | None:
        """Floating-point operations of training over all seeds; None if a run does not tell."""
        if not all(run.flops_per_token for run in self.group.runs):
            return None
        return sum(run.tokens * (run.flops_per_token or 0.0) for run in self.group.runs)


def result(runs: Sequence[Run], said: Sequence[Comparison | Refusal]) -> Result | None:
    """The headline of an experiment's runs; None without runs.

    Args:
        runs: its runs.
        said: what can be said of their groups.
    """
    own = groups(runs)
    if not own:
        return None
    found = {c.variant.runs[0].run: c for c in said if isinstance(c, Comparison)}
    return Result(own[0], found.get(own[0].runs[0].run))
