"""Training steps on one GPU: base against PyTorch, moe, and base with other choices.

python -m tests.benchmarks.gpu_steps --preset 350m --peers compile flex --gpu --json OUT
python -m tests.benchmarks.gpu_steps --preset 1b --choices --gpu --json OUT

Stages of gpu.py.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.contest import NotMeasured
from tests.benchmarks.measure import (
    BenchmarkError,
    Report,
    Series,
    Table,
    flags_of,
    keep,
    positive,
    report_of,
    run,
)
from tests.benchmarks.stages import end_with_runner
from tests.benchmarks.step import Peer, Race, Setup, add_torch_flag

# Rows of a batch of 16,384 tokens. They fill a large card; and ours, two peers and the products,
# which are on it at the same time, take about 100 GiB of it by their weights and activations.
ROWS = {"tiny": 2, "130m": 8, "350m": 8, "1b": 4}
SIZE, SMALL_SIZE = 8192, 256
PRODUCTS = 30  # 42 ms of them at 790 TFLOP/s
MFU = {"1b": 0.55}
PEERS: dict[str, Peer] = {
    "compile": ("PyTorch, torch.compile", "tests.benchmarks.peer_torch", ("--compile",)),
    "flex": ("PyTorch, flex_attention", "tests.benchmarks.peer_torch", ("--compile", "--flex")),
}
AS_IS = "as the preset"
# The template's flags that each choice adds to the preset's. What it refuses is recorded.
CHOICES: dict[str, tuple[str, ...]] = {
    "queries in chunks of 2,048": ("--model.query-chunk", "2048"),
    "every layer recomputed": ("--model.remat-layers", "24"),
    "queries in chunks of 128": ("--model.query-chunk", "128"),
}
CHOICE_TABLE, PEAK_TABLE = "Choices", "Matrix products"
FIRST_CASE_S = 20  # seconds that a case takes at least
TURNS_S = 20  # of the turns, after all are ready
TAIL_S = 5  # and seconds to end in


def words_of(preset: str, flags: argparse.Namespace) -> list[str]:
    """For tests.benchmarks.ours."""
    rows = flags.rows or ROWS[preset]
    words = ["--variant", flags.variant, "--preset", preset, "--rows", str(rows)]
    return [*words, "--dtype", "bfloat16", "--whole"]


def setup_of(
    flags: argparse.Namespace, words: Sequence[str], rulers: Sequence[str], ends: float
) -> Setup:
    return Setup(
        words,
        name=f"grug {flags.variant}",
        dtype="bfloat16",
        size=SMALL_SIZE if flags.quick else SIZE,
        flags=["--gpu"] * flags.gpu,
        rulers=rulers,
        torch=flags.torch_python,
        products=PRODUCTS,
        agreeing=1,  # without warmup, rounding grows fast from the second update on
        lenient=True,
        side_by_side=True,
        ready_by=ends - TURNS_S,
    )


def peak_of(report: Report) -> list[float]:
    """FLOP/s of the best matrix product in each round of the newest case that took some."""
    found = [one for t in report.tables if t.title == PEAK_TABLE for one in t.series]
    return [1e12 * value for value in found[-1].values] if found else []


def with_share(series: Series, peak: Sequence[float]) -> Series:
    """With its share of a peak that was measured before."""
    if not peak:
        return series
    share = 100e9 * float(series.facts["GFLOP/s"]) / float(np.median(peak))
    return Series(series.case, series.name, series.values, {**series.facts, "% of the peak": share})


def as_is(report: Report | None, case: str) -> list[Series]:
    """Ours in a case that was measured before, as a choice."""
    tables = report.tables if report else ()
    rows = [one for t in tables if t.title == Race.TITLE for one in t.case(case)]
    return [Series(AS_IS, one.name, one.values, one.facts) for one in rows[:1]]


def tables_of(race: Race, flags: argparse.Namespace, peak: Sequence[float]) -> list[Table]:
    """The steps, and the peak where one was measured."""
    if flags.choices:
        title = f"{CHOICE_TABLE} at {name_of(flags)}"
        series = tuple(with_share(one, peak) for one in race.series)
        return [Table(title, "tokens/s", "more", series)] * bool(series)
    tables = [race.table()] * bool(race.series)
    if race.peaks:
        values = tuple(flops / 1e12 for flops in race.peaks)
        size = SMALL_SIZE if flags.quick else SIZE
        one = Series(f"{size} x {size}, beside {name_of(flags)}", "", values)
        tables.append(Table(PEAK_TABLE, "TFLOP/s", "more", (one,)))
    return tables


def all_choices() -> dict[str, tuple[str, ...]]:
    """The preset as it is, every attention that base names, and CHOICES.

    Chunks come last: on most machines they are what the preset does.
    """
    from tests.benchmarks.gpu_numerics import ways_to_attend  # imports JAX, which takes seconds

    attention = {f"attention={name}": ("--model.attention", name) for name in ways_to_attend()}
    chunks = {name: attention.pop(name) for name in ("attention=chunks",)}
    return {AS_IS: (), **attention, **CHOICES, **chunks}


def name_of(flags: argparse.Namespace) -> str:
    """Of the case, without a choice."""
    label = flags.label or flags.preset
    return label if flags.variant == "base" else f"{label}, {flags.variant}"


def main(flags: argparse.Namespace, load: float) -> None:
    began, longest = time.monotonic(), float(FIRST_CASE_S if flags.gpu else 1)
    ends = began + flags.limit_s - TAIL_S
    so_far = Report.read(flags.so_far) if flags.so_far else None
    race = Race(flags.rounds, flags.steps_per_round, until=ends)
    choices = all_choices() if flags.choices else {"": ()}
    rulers = [] if flags.choices else ["xla", "torch"]
    peak = peak_of(so_far) if so_far else []
    if flags.choices:
        race.series += as_is(so_far, name_of(flags))
    for choice, template in choices.items():
        if any(choice == one.case for one in race.series):
            continue
        words = words_of(flags.preset, flags) + ["--template", *template] * bool(template)
        case, first = choice or name_of(flags), time.monotonic()
        share = MFU.get(flags.preset) if flags.gpu and flags.variant == "base" else None
        if first + longest > ends:
            race.missing[case] = "no time was left"
        else:
            try:
                setup = setup_of(flags, words, rulers, ends)
                peers = [PEERS[name] for name in flags.peers]
                race.add(case, setup, peers, ahead=1.0, share=None if choice else share)
            except (BenchmarkError, NotMeasured) as error:
                race.missing[case] = str(error)
        longest = max(longest, time.monotonic() - first)
        report = report_of(flags, tables_of(race, flags, peak), load=load, **race.found())
        keep(flags, report)


if __name__ == "__main__":
    end_with_runner()
    parser = flags_of("gpu_steps", __doc__)
    parser.add_argument("--variant", choices=["base", "moe"], default="base")
    parser.add_argument("--preset", choices=ROWS, default="350m", help="sizes (350m)")
    parser.add_argument("--label", help="what to call the preset")
    parser.add_argument("--rows", type=positive, help="rows of a batch, instead of a fixed number")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="none of them")
    parser.add_argument(
        "--choices", action="store_true", help="the preset, changed in several ways"
    )
    parser.add_argument("--so-far", type=Path, metavar="REPORT", help="report of the stages before")
    parser.add_argument("--steps-per-round", type=positive, default=3, help="in each round (3)")
    parser.add_argument("--limit-s", type=positive, default=600, help="seconds in all (600)")
    parser.add_argument("--gpu", action="store_true", help="on a GPU; else on the CPU")
    add_torch_flag(parser)
    run("gpu_steps", main, parser)
