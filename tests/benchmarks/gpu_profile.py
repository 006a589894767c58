"""Where the time of base's training step goes, by function and by kernel: a trace of some steps.

python -m tests.benchmarks.gpu_profile --preset 1b --json OUT --trace OUT.xplane.pb.gz

The last stage of gpu.py, for the fastest choice of those before. The trace opens in XProf and in
TensorBoard.
"""

import argparse
import collections
import dataclasses
import gzip
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.benchmarks import ours
from tests.benchmarks.gpu_steps import AS_IS, CHOICE_TABLE, all_choices, words_of
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

WARMING_STEPS = 3
KERNELS = 20  # of most time
LARGEST_TRACE = 16 << 20  # bytes, compressed
TEMPLATE = "/experiments/grug/"
CONTROL = re.compile(r"(while|call|conditional|async-)[\w.-]*$")  # what they run is timed, too
COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*)")
ENTRY = re.compile(r"(\d+) (.*)")
FIELD = re.compile(r"(\w+)=(\d+)")
NO_SCOPE = "(none of the template's)"


@dataclasses.dataclass(frozen=True)
class Event:
    """One piece of a device's time."""

    kernel: str
    instruction: str
    """Of the compiled program; empty where the trace does not tell."""
    ms: float


@dataclasses.dataclass(frozen=True)
class Frames:
    """The stack frames in the text of a compiled program, by their numbers."""

    files: Mapping[int, str]
    functions: Mapping[int, str]
    locations: Mapping[int, Mapping[str, int]]
    frames: Mapping[int, Mapping[str, int]]

    @staticmethod
    def parse(text: str) -> "Frames":
        """Reads the four lists before the first computation; those of a text without them are
        empty."""
        lists: dict[str, dict[int, str]] = {}
        current: dict[int, str] = {}
        for line in text.splitlines():
            if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
                current = lists.setdefault(line, {})
            elif line.endswith("{"):
                break
            elif match := ENTRY.match(line):
                current[int(match[1])] = match[2]

        def fields(name: str) -> dict[int, dict[str, int]]:
            entries = lists.get(name, {}).items()
            return {key: {k: int(v) for k, v in FIELD.findall(text)} for key, text in entries}

        def names(name: str) -> dict[int, str]:
            return {key: text.strip('"') for key, text in lists.get(name, {}).items()}

        return Frames(
            names("FileNames"),
            names("FunctionNames"),
            fields("FileLocations"),
            fields("StackFrames"),
        )

    def stack(self, frame: int) -> Iterator[tuple[str, str]]:
        """(file, function), from the innermost to the outermost."""
        seen = set()
        while frame in self.frames and frame not in seen:
            seen.add(frame)
            at = self.locations.get(self.frames[frame].get("file_location_id", 0), {})
            yield (
                self.files.get(at.get("file_name_id", 0), ""),
                self.functions.get(at.get("function_name_id", 0), ""),
            )
            frame = self.frames[frame].get("parent_frame_id", 0)


def scopes(text: str) -> dict[str, str]:
    """Where each instruction of a compiled program comes from: see `scope`.

    A fusion that does not tell comes from where most of its instructions do.
    """
    frames, found = Frames.parse(text), {}
    inside: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    fusions, computation = {}, ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            computation = match[1]
        elif match := INSTRUCTION.match(line):
            name, attributes = match[1], match[2]
            if origin := scope(attributes, frames):
                found[name] = origin
                inside[computation][origin] += 1
            elif called := re.search(r"calls=%?([\w.-]+)", attributes):
                fusions[name] = called[1]
    for name, called in fusions.items():
        if origins := inside[called]:
            found[name] = origins.most_common(1)[0][0]
    return found


def scope(attributes: str, frames: Frames) -> str:
    """The template's innermost function of an instruction, and the pass it belongs to.

    Nothing where its stack is not known or has nothing of the template.
    """
    number = re.search(r"stack_frame_id=(\d+)", attributes)
    stack = list(frames.stack(int(number[1]))) if number else []
    if any("/optax/" in file for file, _ in stack):
        return "optimizer"
    own = [function for file, function in stack if TEMPLATE in file]
    return own[0].replace(".<locals>", "") + passage(attributes) if own else ""


def passage(attributes: str) -> str:
    """Which pass an instruction belongs to, by JAX's name of the operation."""
    name = re.search(r'op_name="([^"]*)"', attributes)
    if name and "rematted_computation" in name[1]:
        return ", recomputed"
    return ", backward" if name and "transpose(" in name[1] else ""


def events(path: Path, module: str) -> list[Event]:
    """What a GPU did in a trace, or where there was none, what XLA did on the CPU.

    Raises:
        BenchmarkError: neither is in it.
    """
    trace = jax.profiler.ProfileData.from_file(str(path))
    found: dict[bool, list[Event]] = {True: [], False: []}
    for plane in trace.planes:
        is_gpu = plane.name.startswith("/device:GPU")
        lines = list(plane.lines)
        streams = [line for line in lines if line.name.startswith("Stream")]
        for event in (event for line in streams or lines for event in line.events):
            stats: dict[str, Any] = {str(name): value for name, value in event.stats}
            instruction = str(stats.get("hlo_op", ""))
            is_own = instruction and stats.get("hlo_module", module) == module
            if is_gpu or (is_own and not CONTROL.match(instruction)):
                found[is_gpu].append(Event(event.name, instruction, event.duration_ns / 1e6))
    if not (found[True] or found[False]):
        raise BenchmarkError("the trace has nothing that a device did")
    return found[True] or found[False]


def times(found: Mapping[str, float], title: str, steps: int) -> Table:
    """Milliseconds per step, the longest first."""
    total = sum(found.values())
    ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:KERNELS]
    return Table(
        title,
        "ms per step",
        "less",
        tuple(Series(name, "", (ms / steps,), {"%": 100 * ms / total}) for name, ms in ordered),
    )


def traced(training: ours.Training, step: Any, steps: int, into: Path) -> tuple[Path, float]:
    """The trace's file, and the seconds that `steps` steps took in it."""
    state, metrics = training.state, None
    for index in range(WARMING_STEPS):
        state, metrics = step(state, training.batches[index % len(training.batches)])
    jax.block_until_ready(metrics)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level, options.host_tracer_level = 0, 1
    with jax.profiler.trace(str(into), profiler_options=options):
        began = time.perf_counter()
        for index in range(steps):
            state, metrics = step(state, training.batches[index % len(training.batches)])
        jax.block_until_ready(metrics)
        seconds = time.perf_counter() - began
    training.state = state
    files = list(into.rglob("*.xplane.pb"))
    if not files:
        raise BenchmarkError("the profiler wrote no trace")
    return files[0], seconds


def keep_trace(path: Path, out: Path) -> str:
    """Compresses it to `out`. Why it is not kept, or nothing."""
    with path.open("rb") as source, gzip.open(out, "wb") as target:
        shutil.copyfileobj(source, target)
    if (size := out.stat().st_size) <= LARGEST_TRACE:
        return ""
    out.unlink()
    return f"{size >> 20} MiB, which is more than {LARGEST_TRACE >> 20}"


def best_choice(report: Report | None) -> str:
    """The name of the fastest choice so far, else the preset as it is."""
    tables = report.tables if report else ()
    rows = [one for t in tables if t.title.startswith(CHOICE_TABLE) for one in t.series]
    rows.sort(key=lambda one: -float(np.median(one.values)))
    return rows[0].case if rows else AS_IS


def main(flags: argparse.Namespace, load: float) -> None:
    flags.variant = "base"
    choice = best_choice(Report.read(flags.so_far) if flags.so_far else None)
    words = [*words_of(flags.preset, flags), "--template", *all_choices()[choice]]
    training = ours.training(ours.flags_of_training().parse_args(words), None)
    step = training.train_step.lower(training.state, training.batches[0]).compile()
    text, missing = step.as_text() or "", {}
    with tempfile.TemporaryDirectory() as scratch:
        path, seconds = traced(training, step, flags.steps, Path(scratch))
        found = events(path, text.split(maxsplit=2)[1].rstrip(","))
        if flags.trace and (why := keep_trace(path, flags.trace)):
            missing["the trace itself"] = why
    scope_of = scopes(text)
    kernels: dict[str, float] = collections.defaultdict(float)
    functions: dict[str, float] = collections.defaultdict(float)
    for event in found:
        kernels[event.kernel] += event.ms
        functions[scope_of.get(event.instruction, NO_SCOPE)] += event.ms
    case = f"{flags.preset}, {choice}"
    total = sum(kernels.values()) / flags.steps
    wall = Series(case, "", (1e3 * seconds / flags.steps,), {"ms in kernels": total})
    tables = [
        Table("Profiled step", "ms per step", "less", (wall,)),
        times(functions, "Time by function of the template", flags.steps),
        times(kernels, "Time by kernel", flags.steps),
    ]
    report = report_of(flags, tables, load=load, missing=missing, versions={"jax": jax.__version__})
    keep(flags, report)


if __name__ == "__main__":
    end_with_runner()
    parser = flags_of("gpu_profile", __doc__)
    parser.add_argument("--preset", default="1b", help="preset to look at (1b)")
    parser.add_argument("--rows", type=positive, help="rows of a batch, instead of a fixed number")
    parser.add_argument("--steps", type=positive, default=2, help="steps to trace (2)")
    parser.add_argument("--so-far", type=Path, metavar="REPORT", help="report that has the choices")
    parser.add_argument("--trace", type=Path, metavar="OUT", help="write the trace itself to OUT")
    run("gpu_profile", main, parser)
