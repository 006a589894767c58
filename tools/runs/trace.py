"""Reads where time went from a trace of JAX's profiler, an .xplane.pb file (xplane.proto of XLA).

The trace also holds the programs that ran (hlo.proto of XLA), whose instructions have JAX's names.
They lie where JAX's own reader does not look, so a reader of protocol buffers is here.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.common.files import MIB

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else XLA's reader prints lines of its own

from jax.profiler import ProfileData

MAX_TRACE = 2048 * MIB
STEPS, STEP, PREFIX = "run/steps", "run/step", "run/"  # of plumbing/profile.py in each variant
# They last as long as what they run.
_CONTAINERS = ("while", "conditional", "call")
_PRODUCTS = ("dot", "convolution", "ragged-dot")
_REGION = "ThreadpoolListener::"  # events of XLA's threads on a CPU

Interval = tuple[float, float, Any]
"""Start and end in nanoseconds, and what it is of."""
Times = dict[str, float]
"""Nanoseconds by name."""


@dataclass(frozen=True)
class Trace:
    """Wall time of the traced steps, in nanoseconds."""

    first: int
    steps: int
    span: float
    platform: str
    devices: list[Times]
    """Of each device, by the operation's name in JAX: an instant in which several operations run
    counts for each in equal parts. "" is what JAX has no name for."""
    host: Times
    """Of the thread that runs the steps, by what it did."""


@dataclass
class Program:
    """JAX's name of each instruction of a compiled program; None for one that runs others."""

    names: dict[str, str | None] = field(default_factory=dict)


@dataclass
class _Thread:
    """What one thread of a CPU did."""

    ops: list[Interval] = field(default_factory=list)
    regions: list[Interval] = field(default_factory=list)


def read(path: Path, name: str) -> Trace:
    """The trace in a file; `name` is its name in messages.

    Raises:
        ToolError: it is damaged, or no trace of a run's steps.
    """
    size = path.stat().st_size
    if size > MAX_TRACE:
        raise ToolError(f"{name}: holds {size / MIB:,.0f} MiB, this reads {MAX_TRACE / MIB:,.0f}")
    data = path.read_bytes()
    try:
        planes = list(ProfileData.from_serialized_xspace(data).planes)
        programs = read_programs(data)
    except (RuntimeError, ValueError) as error:
        raise ToolError(f"{name}: is no trace, or a damaged one: trace the run again") from error
    steps = _steps(planes, name)
    platform, lines = _lines(planes)
    if not lines:
        raise ToolError(f"{name}: no operation of a device is in it: trace the run again")
    if not programs:
        raise ToolError(f"{name}: the programs that ran are not in it: trace the run again")
    devices = []
    for intervals in lines.values():
        by_key = _shared(intervals, steps.start, steps.end, programs)
        by_name: Times = defaultdict(float)
        for key, time in by_key.items():
            by_name[_name(programs, *key) or ""] += time
        devices.append(by_name)
    span, numbers = steps.end - steps.start, steps.numbers
    return Trace(numbers[0], len(numbers), span, platform, devices, steps.host)


@dataclass(frozen=True)
class _Steps:
    """What the thread that runs the steps says of them."""

    start: float
    end: float
    numbers: list[int]
    host: Times


def _steps(planes: Iterable[Any], name: str) -> _Steps:
    """The traced steps. Raises ToolError if there are none."""
    for plane in planes:
        for line in plane.lines if plane.name == "/host:CPU" else ():
            events = [(e.start_ns, e.end_ns, e) for e in line.events if e.name.startswith(PREFIX)]
            for start, end, event in events:
                if event.name == STEPS and start < end:
                    inner = [
                        e for e in events if start <= e[0] and e[1] <= end and e[2] is not event
                    ]
                    steps = _Steps(start, end, _numbers_of(inner), _outermost(inner))
                    if steps.numbers:
                        return steps
    raise ToolError(f"{name}: no steps of a run are in it: give a run that had --profile")


def _numbers_of(events: Iterable[Interval]) -> list[int]:
    numbers = [dict(event.stats).get("step_num") for _, _, event in events if event.name == STEP]
    return sorted(number for number in numbers if isinstance(number, int))


def _outermost(events: Iterable[Interval]) -> Times:
    """The time of what a thread did, by name; what is done within something else is part of it."""
    times: Times = defaultdict(float)
    until = 0.0
    for start, end, event in sorted(events, key=lambda one: (one[0], -one[1])):
        if start >= until and event.name != STEPS:
            name = "dispatching" if event.name == STEP else event.name.removeprefix(PREFIX)
            times[name] += end - start
            until = end
    return times


def _lines(planes: Iterable[Any]) -> tuple[str, dict[Any, list[list[Interval]]]]:
    """(platform, by device the intervals of each of its lines); keys are (program, instruction)."""
    found: dict[Any, list[list[Interval]]] = defaultdict(list)
    platform = "cpu"
    host = [plane for plane in planes if plane.name == "/host:CPU"]
    for plane in planes:
        if plane.name.startswith("/device:"):
            for line in plane.lines:
                if line.name == "XLA Ops" or line.name.startswith("Stream"):
                    platform = plane.name.split(":")[1].lower()
                    found[plane.name].append([_operation(event) for event in line.events])
    return (platform, found) if found else (platform, _threads(host))


def _operation(event: Any) -> Interval:
    """An event of an accelerator. A TPU's name is that of the instruction, or its whole text."""
    stats = dict(event.stats)
    program = f"{stats.get('hlo_module', '')}({stats.get('program_id', '')})"
    instruction = stats.get("hlo_op") or event.name.removeprefix("%").partition(" ")[0]
    return event.start_ns, event.end_ns, (program, str(instruction))


def _threads(planes: Iterable[Any]) -> dict[Any, list[list[Interval]]]:
    """`_lines` of a CPU, whose threads take parts of operations from each other.

    A part that one thread has recorded and another one runs (a region) is of the operation in which
    it was recorded.
    """
    threads: list[_Thread] = []
    producers: dict[int, Any] = {}
    for plane in planes:
        threads += [_thread(line, producers) for line in plane.lines]

    def owner(region: Any) -> Any:
        seen = set()
        while isinstance(region, int) and region not in seen:
            seen.add(region)
            region = producers.get(region)
        return None if isinstance(region, int) else region

    found: dict[Any, list[list[Interval]]] = defaultdict(list)
    for thread in threads:
        regions = [(start, end, owner(region)) for start, end, region in thread.regions]
        by_device: dict[Any, list[Interval]] = defaultdict(list)
        for start, end, key in [*thread.ops, *regions]:
            if key:
                by_device[key[2]].append((start, end, key[:2]))
        for device, intervals in by_device.items():
            found[device].append(intervals)
    return found


def _thread(line: Any, producers: dict[int, Any]) -> _Thread:
    """What a thread did. Adds to `producers` what each part that it records is of: an operation, or
    another part."""
    thread = _Thread()
    regions: list[tuple[float, int]] = []
    within: list[tuple[float, float, Any]] = []  # the operations that are running
    for event in sorted(line.events, key=lambda e: (e.start_ns, -e.duration_ns)):
        stats, start = dict(event.stats), event.start_ns
        within = [one for one in within if one[1] > start]
        if event.name == f"{_REGION}StartRegion":
            regions.append((start, int(stats.get("_c", 0))))
        elif event.name == f"{_REGION}StopRegion" and regions:
            begin, region = regions.pop()
            thread.regions.append((begin, start, region))
        elif event.name == f"{_REGION}Record":
            is_inner = within and (not regions or within[-1][0] >= regions[-1][0])
            region = regions[-1][1] if regions else None
            producers[int(stats.get("_p", 0))] = within[-1][2] if is_inner else region
        elif "hlo_op" in stats:
            program = f"{stats.get('hlo_module', '')}({stats.get('program_id', '')})"
            key = (program, str(stats["hlo_op"]), stats.get("device_ordinal", 0))
            within.append((start, event.end_ns, key))
            thread.ops.append(within[-1])
    return thread


def _shared(
    lines: Iterable[list[Interval]], start: float, end: float, programs: dict[str, Program]
) -> dict[tuple[str, str], float]:
    """The time from start to end by key, an instant divided equally among the lines that work."""
    points: list[tuple[float, int, tuple[str, str]]] = []
    for intervals in lines:
        own = [one for one in intervals if _name(programs, *one[2]) is not None]
        for begin, stop, key in _innermost(own):
            begin, stop = max(begin, start), min(stop, end)
            if begin < stop:
                points += [(begin, 1, key), (stop, -1, key)]
    shares: dict[tuple[str, str], float] = defaultdict(float)
    active: dict[tuple[str, str], int] = defaultdict(int)
    last, working = start, 0
    for time, change, key in sorted(points):
        if working and time > last:
            for one, lines_of_it in active.items():
                shares[one] += (time - last) * lines_of_it / working
        last, working = time, working + change
        active[key] += change
        if not active[key]:
            del active[key]
    return shares


def _innermost(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The intervals of one line without what others within them take."""
    open_ones: list[Interval] = []
    time = 0.0

    def until(moment: float) -> Iterator[Interval]:
        nonlocal time
        while open_ones:
            _, end, key = open_ones[-1]
            if min(end, moment) > time:
                yield time, min(end, moment), key
                time = min(end, moment)
            if end > moment:
                break
            open_ones.pop()
        time = max(time, moment)

    for interval in sorted(intervals, key=lambda one: (one[0], -one[1])):
        yield from until(interval[0])
        open_ones.append(interval)
    yield from until(max((end for _, end, _ in open_ones), default=0.0))


def _name(programs: dict[str, Program], program: str, instruction: str) -> str | None:
    """JAX's name of an instruction, "" if it has none; None if it runs other instructions.

    A program that the event does not name is looked for: a TPU's events have no names of programs.
    """
    if program in programs:
        return programs[program].names.get(instruction, "")
    for other in programs.values():
        if instruction in other.names:
            return other.names[instruction]
    return ""


# Numbers of fields: of XSpace, XPlane, XEventMetadata and XStat in xplane.proto, of HloProto,
# HloModuleProto, HloComputationProto, HloInstructionProto and OpMetadata in hlo.proto.
Fields = dict[int, list[Any]]


def read_programs(data: bytes) -> dict[str, Program]:
    """The compiled programs in a trace, by names such as `jit_step(2)`, the largest first.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _programs(data)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError("a field is missing, or of another kind") from error


def _programs(data: bytes) -> dict[str, Program]:
    found: dict[str, Program] = {}
    for plane in map(_fields, _fields(data).get(1, [])):
        if plane.get(2, [b""])[0] != b"/host:metadata":
            continue
        for entry in plane.get(4, []):
            metadata = _fields(_fields(entry)[2][0])
            for stat in map(_fields, metadata.get(5, [])):
                if 6 in stat:
                    found[metadata[2][0].decode()] = _program(stat[6][0])
    return dict(sorted(found.items(), key=lambda item: -len(item[1].names)))


def _program(data: bytes) -> Program:
    computations: dict[int, list[Fields]] = {}
    for computation in map(_fields, _fields(_fields(data)[1][0]).get(3, [])):
        computations[computation[5][0]] = [_fields(one) for one in computation.get(2, [])]
    program = Program()
    for instructions in computations.values():
        labels: dict[int, str] = {}
        for one in instructions:  # what an instruction reads comes before it
            name, opcode = one[1][0].decode(), one[2][0].decode()
            label = _label(one, computations) or _inherited(one, labels)
            labels[one[35][0]] = label
            program.names[name] = None if opcode in _CONTAINERS else label
    # Of a GPU's kernels that are launched together, this form of the instruction's name is known.
    kernels = {re.sub(r"\W", "_", name): label for name, label in program.names.items()}
    program.names = {**kernels, **program.names}
    return program


def _label(instruction: Fields, computations: dict[int, list[Fields]]) -> str:
    """JAX's name of an instruction. Of a fusion with matrix products it is that of the first one:
    they take its time. Otherwise it is its own, or one of those that it was made of."""
    calls = _numbers(instruction, 38)
    inner = [one for number in calls for one in computations.get(number, [])]
    products = [one for one in inner if one[2][0].decode() in _PRODUCTS]
    names = [_op_name(one) for one in (*products, instruction, *reversed(inner))]
    return next((name for name in names if "/" in name), "")


def _inherited(instruction: Fields, labels: dict[int, str]) -> str:
    """The name of what an instruction reads, for one that a compiler's pass left without its own.

    What reads of the backward pass is of the backward pass.
    """
    names = [labels.get(number, "") for number in _numbers(instruction, 36)]
    ranks = {name: 2 * ("transpose(" in name) - ("rematted_computation" in name) for name in names}
    return max(filter(None, names), key=ranks.__getitem__, default="")


def _op_name(instruction: Fields) -> str:
    metadata = _fields(instruction[7][0]) if 7 in instruction else {}
    return metadata[2][0].decode() if 2 in metadata else ""


def _numbers(message: Fields, field: int) -> Iterator[int]:
    """The numbers of a repeated field: varints, packed or one by one."""
    for value in message.get(field, []):
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            yield number


def _fields(message: Any) -> Fields:
    """The fields of a protocol buffer by number: numbers, or bytes of text and messages.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(message, bytes | memoryview):
        raise ValueError("a number stands where a message belongs")
    view, fields, place = bytes(message), defaultdict(list), 0
    while place < len(view):
        tag, place = _varint(view, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(view, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, place = int.from_bytes(view[place : place + size], "little"), place + size
        elif kind == 2:
            size, place = _varint(view, place)
            value, place = view[place : place + size], place + size
        else:
            raise ValueError(f"no field is of kind {kind}")
        if place > len(view):
            raise ValueError("it is cut short")
        fields[number].append(value)
    return dict(fields)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """(a number, the place after it). Raises ValueError if it is cut short or too long."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it is cut short")
        byte = data[place]
        number, place = number | (byte & 127) << shift, place + 1
        if byte < 128:
            return number, place
    raise ValueError("a number has more than ten bytes")
