"""`./pants run launch -- VARIANT --plan --against OTHER`: two variants' plans in one table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tools.common.errors import ToolError
from tools.common.jsonio import parse_json
from tools.runs.run_summary import Run, flat

SCHEMA = 1  # of a plan's JSON
MIB = 2**20
# What must be equal for the speed of a run to be that of a plan, beside model.*.
SETTINGS = ("batch_size", "sequence_length", "microbatches", "mesh")
Start = Callable[[str], "subprocess.CompletedProcess[str]"]
Plan = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table: how a plan's number is found, and written."""

    label: str
    value: Callable[[Plan], Any]
    form: str = ",.0f"


def take_flag(name: str, flags: Sequence[str]) -> tuple[str, list[str]]:
    """(value of a flag, the other flags). Raises ValueError if it has none."""
    value, rest, left = "", [], iter(flags)
    for flag in left:
        own, equals, given = flag.partition("=")
        if own != name:
            rest.append(flag)
        elif not (value := given if equals else next(left, "")) or value.startswith("-"):
            raise ValueError(f"{name} names no variant: {name} base")
    return value, rest


def compare(names: Sequence[str], start: Start, runs: Iterable[Run]) -> int:
    """Prints two variants' plans side by side; 1 if one does not fit, else 0.

    Args:
        names: the variants, of which the second is what the first is held against.
        start: runs `--plan --json` of a variant, in a process of its own.
        runs: recorded runs; where some are of a plan's settings and hardware, so is their speed.

    Raises:
        ToolError: a variant has no plan for these flags; in its own words.
    """
    plans = []
    for name in names:
        print(f"launch: planning {name} ...", file=sys.stderr, flush=True)
        plans.append(read_plan(start(name), name))
    known = list(runs)
    named = list(zip(names, plans, strict=True))
    print(table(names, plans, [measured(plan, name, known) for name, plan in named]))
    for name, plan in named:
        if not fits(plan):
            print(f"{name} does not fit: {plan['compiled']['error']}")
    return 0 if all(map(fits, plans)) else 1


def read_plan(done: subprocess.CompletedProcess[str], name: str) -> Plan:
    """The plan that a variant's process printed. Raises ToolError if it printed none."""
    if not done.stdout.strip():
        raise ToolError(f"{name} has no plan for these flags: {first_line(done.stderr)}")
    plan = parse_json(
        done.stdout, f"the plan of {name}", remedy="see what its --plan --json prints"
    )
    version = plan.get("schema_version") if isinstance(plan, dict) else None
    if version != SCHEMA:
        remedy = "fast-forward its planning/: ./pants drift --drift-apply=plumbing"
        raise ToolError(f"{name}: its plan is of schema {version}, not {SCHEMA}; {remedy}")
    return plan


def first_line(text: str) -> str:
    """The line of an error that says most: the first in the box that tyro draws around one.

    Of a traceback it is the last.
    """
    drawn = [line.strip(" │╭╮╰╯─") for line in text.splitlines() if "─ " not in line]
    lines = [line for line in drawn if line]
    return lines[-1 if "Traceback" in text else 0] if lines else "it said nothing"


def fits(plan: Plan) -> bool:
    """Whether it fits, as far as anything was compiled."""
    return not plan["compiled"] or plan["compiled"]["fits"]


def measured(plan: Plan, name: str, runs: Iterable[Run]) -> float | None:
    """Tokens per second of the recorded runs of a plan, their median; None where there is none."""
    compiled = plan["compiled"]
    if not compiled:
        return None
    settings = flat(plan["config"])
    wanted = {k: v for k, v in settings.items() if k.startswith("model.") or k in SETTINGS}
    speeds = [
        run.tokens_per_second
        for run in runs
        if run.variant == name
        and run.devices["count"] == compiled["devices"]
        and is_kind(run.devices["kind"], compiled["device_kind"])
        and {k: flat(run.config).get(k) for k in wanted} == wanted
    ]
    return median(speeds) if speeds else None


def is_kind(device: str, kind: str) -> bool:
    """Whether a device is of a kind: a GPU's name goes on, as in `NVIDIA H100 80GB HBM3`."""
    return device == kind or (kind.startswith("NVIDIA ") and device.split()[:2] == kind.split())


def table(names: Sequence[str], plans: Sequence[Plan], speeds: Sequence[float | None]) -> str:
    """Both plans, and the first over the second."""
    lines = [["", *names, f"{names[0]} / {names[1]}"]]
    rows = [*ESTIMATE, *(COMPILED if any(plan["compiled"] for plan in plans) else ())]
    for row in rows:
        lines.append(line(row.label, [row.value(plan) for plan in plans], row.form))
    if any(speeds):
        lines.append(line("tokens per second, of recorded runs", speeds, ",.0f"))
        least = [roofline(plan).get("tokens_per_second") for plan in plans]
        pairs = zip(speeds, least, strict=True)
        shares = [speed / most if speed and most else None for speed, most in pairs]
        lines.append(line("  of the most possible", shares, ".1%"))
    shown = [each for each in lines if any(each[1:])]
    widths = [max(len(each[column]) for each in shown) for column in range(4)]
    return "\n".join(
        f"{each[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(each[1:], widths[1:], strict=True))
        for each in shown
    )


def line(label: str, values: Sequence[Any], form: str) -> list[str]:
    """A line's cells; a number that a plan lacks leaves an empty one."""
    cells = ["" if value is None else format(value, form) for value in values]
    one, other = values
    are_numbers = all(isinstance(value, int | float) and value for value in values)
    return [label, *cells, f"{one / other:.2f}" if are_numbers else ""]


def step(plan: Plan) -> Plan:
    """What is known of the compiled step."""
    return (plan["compiled"] or {}).get("step") or {}


def roofline(plan: Plan) -> Plan:
    """What is known of the least time of a step."""
    return step(plan).get("roofline") or {}


def peak(plan: Plan) -> float | None:
    """Bytes of the largest program."""
    peaks = (plan["compiled"] or {}).get("peaks") or {}
    return max(peaks.values(), default=None)


def verdict(plan: Plan) -> str | None:
    """Whether it fits, in a word."""
    return None if not plan["compiled"] else "yes" if fits(plan) else "NO"


def scaled(value: float | None, factor: float) -> float | None:
    """A number in another unit."""
    return None if value is None else value * factor


def seconds(part: str) -> Callable[[Plan], float | None]:
    """The milliseconds that a part of a roofline takes, where it takes any."""
    return lambda plan: scaled(roofline(plan).get("seconds", {}).get(part) or None, 1e3)


def collectives(plan: Plan) -> float | None:
    """Bytes of all collectives of a step."""
    return sum(step(plan)["collectives"].values()) if step(plan) else None


ESTIMATE = (
    Row("parameters", lambda plan: plan["parameters"], ",d"),
    Row("active per token", lambda plan: plan["active_parameters"], ",d"),
    Row("FLOPs per token", lambda plan: plan["flops_per_token"], ".4g"),
    Row("tokens", lambda plan: plan["tokens"], ",d"),
    Row("steps", lambda plan: plan["steps"], ",d"),
    Row("FLOPs in total", lambda plan: plan["flops_per_token"] * plan["tokens"], ".4g"),
    Row("memory per device, estimate, MiB", lambda plan: sum(plan["memory"].values()) / MIB),
)
COMPILED = (
    Row("memory per device, compiled, MiB", lambda plan: scaled(peak(plan), 1 / MIB)),
    Row("fits", verdict, ""),
    Row("FLOPs per step and device, of the model", lambda p: step(p).get("model_flops"), ".4g"),
    Row("FLOPs per step and device, compiled", lambda p: step(p).get("flops"), ".4g"),
    Row("  over the model's", lambda plan: step(plan).get("ratio"), ".2f"),
    Row("device memory traffic, MiB", lambda p: scaled(step(p).get("bytes_accessed"), 1 / MIB)),
    Row("collectives, MiB", lambda plan: scaled(collectives(plan), 1 / MIB)),
    Row("least time, compute, ms", seconds("compute"), ",.2f"),
    Row("least time, memory, ms", seconds("memory"), ",.2f"),
    Row("least time, links, ms", seconds("links"), ",.2f"),
    Row("least time, network, ms", seconds("network"), ",.2f"),
    Row("binds", lambda plan: roofline(plan).get("binds"), ""),
    Row("least step time, ms", lambda p: scaled(roofline(p).get("step_seconds"), 1e3), ",.2f"),
    Row("highest MFU", lambda plan: roofline(plan).get("mfu"), ".1%"),
    Row("tokens per second, at most", lambda p: roofline(p).get("tokens_per_second")),
    Row("hours, at least", lambda plan: roofline(plan).get("hours"), ",.2f"),
    Row("device-hours, at least", lambda plan: roofline(plan).get("device_hours"), ",.1f"),
    Row("dollars, at least", lambda plan: roofline(plan).get("dollars"), ",.2f"),
)
