"""Traces written by hand, in the form of xplane.proto and hlo.proto of XLA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.profiler import ProfileData

Stats = Mapping[str, Any]
Event = tuple[str, float, float, Stats]
"""Name, start and duration in nanoseconds, stats."""


@dataclass
class Plane:
    """A plane with its lines; its events and stats are numbered as they come."""

    name: str
    lines: Mapping[str, Sequence[Event]]
    programs: Mapping[str, bytes] = field(default_factory=dict)
    """Compiled programs by name, which only /host:metadata has."""

    def text(self) -> str:
        """The plane as text of a protocol buffer."""
        self.events, self.stats = {}, {}
        lines = "".join(
            f"lines {{ id: {number} name: {quoted(name)} {''.join(map(self._event, events))} }} "
            for number, (name, events) in enumerate(self.lines.items(), start=1)
        )
        metadata = ""
        for number, (name, program) in enumerate(self.programs.items(), start=1000):
            stat = f"stats {{ {self._stat('Hlo Proto', program)} }}"
            value = f"id: {number} name: {quoted(name)} {stat}"
            metadata += f"event_metadata {{ key: {number} value {{ {value} }} }} "
        for kind, numbers in (("event", self.events), ("stat", self.stats)):
            for name, number in numbers.items():
                value = f"id: {number} name: {quoted(name)}"
                metadata += f"{kind}_metadata {{ key: {number} value {{ {value} }} }} "
        return f"planes {{ name: {quoted(self.name)} {lines} {metadata} }} "

    def _event(self, event: Event) -> str:
        name, start, duration, stats = event
        number = self.events.setdefault(name, len(self.events) + 1)
        shown = "".join(f"stats {{ {self._stat(*item)} }} " for item in stats.items())
        times = f"offset_ps: {round(1000 * start)} duration_ps: {round(1000 * duration)}"
        return f"events {{ metadata_id: {number} {times} {shown} }} "

    def _stat(self, name: str, value: Any) -> str:
        number = self.stats.setdefault(name, len(self.stats) + 1)
        if isinstance(value, int):
            return f"metadata_id: {number} int64_value: {value}"
        kind = "bytes_value" if isinstance(value, bytes) else "str_value"
        return f"metadata_id: {number} {kind}: {quoted(value)}"


def quoted(value: str | bytes) -> str:
    """A string of a protocol buffer's text."""
    data = value.encode() if isinstance(value, str) else value
    return '"' + "".join(f"\\{byte:03o}" for byte in data) + '"'


def space(*planes: Plane) -> bytes:
    """The bytes of an .xplane.pb file."""
    return ProfileData.text_proto_to_serialized_xspace("".join(plane.text() for plane in planes))


def steps(first: int, count: int, span: float, **others: tuple[float, float]) -> Plane:
    """What a run writes of its own thread: the steps from 0 to `span`, and events by name."""
    each = span / count
    events: list[Event] = [("run/steps", 0, span, {})]
    for number in range(count):
        events.append(("run/step", each * number, each / 100, {"step_num": first + number}))
    for name, (start, duration) in others.items():
        events.append((f"run/{name}", start, duration, {}))
    return Plane("/host:CPU", {"python": events})


@dataclass(frozen=True)
class Instruction:
    """An instruction of a compiled program."""

    name: str
    op_name: str = ""
    opcode: str = "fusion"
    calls: Sequence[str] = ()
    reads: Sequence[str] = ()


def program(computations: Mapping[str, Iterable[Instruction]]) -> bytes:
    """An HloProto of computations by name."""
    order = {name: list(items) for name, items in computations.items()}
    numbers = {name: number for number, name in enumerate(order, start=1)}
    ids = {one.name: n for n, one in enumerate((i for c in order.values() for i in c), start=10)}
    module = b""
    for name, items in order.items():
        body = _text(1, name) + _number(5, numbers[name])
        for one in items:
            metadata = _text(7, _text(2, one.op_name)) if one.op_name else b""
            calls = b"".join(map(_varint, (numbers[other] for other in one.calls)))
            reads = b"".join(_number(36, ids[other]) for other in one.reads)
            fields = (
                _text(1, one.name) + _text(2, one.opcode) + metadata + _number(35, ids[one.name])
            )
            body += _text(2, fields + _text(38, calls) + reads)
        module += _text(3, body)
    return _text(1, module)


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _text(field_number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field_number << 3 | 2) + _varint(len(data)) + data
