"""Bytes that a compiled program reads from and writes to device memory, counted from its text.

Each instruction that runs by itself, and so no part of a fusion, reads its operands and writes its
results, as often as the loops around it turn. That is the least: what a fusion keeps on the chip
counts nothing, and what it reads twice counts once.
"""

import math
import re
from collections.abc import Collection, Iterator

from .hlo import COLLECTIVES, Computation, Instruction, callees, loop_length, parse

ARRAY = re.compile(r"\b([a-z]+[\da-z]*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^{}]*))?\})?")
ALIAS = r"\{([\d,]*)\}: \((\d+), \{[^)]*\)"
# What is a name for a value, or runs others, which count by themselves.
FREE = (
    "add-dependency",
    "after-all",
    "async-start",
    "bitcast",
    "call",
    "conditional",
    "constant",
    "domain",
    "get-tuple-element",
    "opt-barrier",
    "optimization-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
    "while",
)
FREE_CALLS = (
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "ConcatBitcast",
)
SLICES = ("dynamic-slice", "gather", "slice")
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # the operand that holds what is written
PASSED = ("custom-call", "parameter", *COLLECTIVES)  # what a fusion may pass on in place
VIEWS = ("bitcast", "convert", "copy", "reshape", "transpose")  # of an array, element by element


def memory_traffic(text: str, turns_of_endless: int = 1) -> float:
    """Bytes between a device and its memory, of a module given as `compiled.as_text()`.

    A slice reads what it takes, and an update of a slice writes it, alone or in a fusion. What lies
    in another memory (a TPU's VMEM, the host's) counts nothing. Sizes include the padding of
    layouts. Every branch of a conditional counts, and a loop of unknown length counts as
    `turns_of_endless` turns.
    """
    computations, entry = parse(text)

    def walk(name: str, times: int) -> float:
        computation, total = computations[name], 0.0
        for item in computation.values():
            total += times * traffic(item, computation, computations)
            length = loop_length(item, computations)
            turns = turns_of_endless if length is None else length
            for called in callees(item) if item.opcode != "fusion" else ():
                total += walk(called, times * turns)
        return total

    return walk(entry, 1)


def traffic(
    item: Instruction, computation: Computation, computations: dict[str, Computation]
) -> float:
    """Bytes that one instruction reads and writes."""
    if item.opcode in FREE or item.opcode.endswith("-done"):
        return 0.0
    operands = [computation[name].shape for name in item.operands if name in computation]
    if item.opcode == "fusion":
        return _of_fusion(item, operands, computations)
    if item.opcode == "custom-call" and any(f'"{n}"' in item.attributes for n in FREE_CALLS):
        return 0.0
    if item.opcode.removesuffix("-start") in SLICES:
        result = arrays(item.shape)[-2 if item.opcode.endswith("-start") else 0]
        return sum(map(device_bytes, [result, *operands[1:]])) + _part(operands[0], result)
    if item.opcode in UPDATES:
        place = UPDATES[item.opcode]
        read_back = place == 2  # a scatter adds to what is there
        return sum(map(device_bytes, operands[1:])) + (1 + read_back) * _part(
            item.shape, operands[place]
        )
    results = arrays(item.shape)
    if item.opcode.endswith("-start") and item.opcode != "all-reduce-start":
        for shape in operands:  # the first results of a start are its operands
            if shape in results:
                results.remove(shape)
    aliased = _aliases(item)
    if "__cublas" in item.attributes:
        results = results[:1]  # the others are workspace
    written = sum(device_bytes(x) for i, x in enumerate(results) if i not in aliased)
    return written + sum(map(device_bytes, operands))


def _of_fusion(
    item: Instruction, operands: list[str], computations: dict[str, Computation]
) -> float:
    """Bytes that a fusion reads and writes.

    What it passes on in place, as parts of a TPU's collective do while it goes on, counts nothing.
    """
    inner = computations[callees(item)[0]]
    if any('"AsyncCollectiveDone"' in part.attributes for part in inner.values()):
        return 0.0  # its start counts
    aliased, results = _aliases(item), arrays(item.shape)
    begins = any('"AsyncCollectiveStart"' in part.attributes for part in inner.values())
    total = 0.0
    for number, shape in enumerate(operands):
        is_passed = number in aliased.values() and not begins
        total += _part(shape, shape, _share_read(number, is_passed, inner, computations))
    shares = _shares_written(inner, computations, len(results), aliased)
    for shape, share in zip(results, shares, strict=True):
        total += _part(shape, shape, share)
    return total


def _aliases(item: Instruction) -> dict[int, int]:
    """Results that are operands in place: {number of the result: that of the operand}."""
    _, _, listed = item.attributes.partition("output_to_operand_aliasing={")
    own = re.match(rf"(?:{ALIAS}(?:, )?)*", listed)
    found = re.findall(ALIAS, own[0]) if own else []
    return {int(result.split(",")[0] or 0): int(operand) for result, operand in found}


def _share_read(
    number: int, is_passed: bool, inner: Computation, computations: dict[str, Computation]
) -> float:
    """The share of a parameter that a fusion reads: 1, unless it takes slices of it alone."""
    place = f"{number}"
    name = next(n for n, i in inner.items() if (i.opcode, i.inside) == ("parameter", place))
    return min(1.0, sum(_uses(name, is_passed, inner, computations)))


def _uses(
    name: str, is_passed: bool, inner: Computation, computations: dict[str, Computation]
) -> Iterator[float]:
    """The share that each use reads of a value in a fusion."""
    whole = _elements(inner[name].shape)
    if inner[name].is_root:
        yield 0.0 if is_passed else 1.0
    for user, item in inner.items():
        for place, operand in enumerate(item.operands):
            if operand != name:
                continue
            if item.opcode in SLICES and place == 0:
                yield _elements(item.shape) / whole
            elif item.opcode in UPDATES and place == 0:
                updates = inner[item.operands[UPDATES[item.opcode]]].shape
                yield _elements(updates) / whole if item.opcode == "scatter" else 0.0
            elif _view_of(item) == place:
                yield from _uses(user, is_passed, inner, computations)
            elif item.opcode == "fusion":
                yield _share_read(place, False, computations[callees(item)[0]], computations)
            else:
                yield 0.0 if is_passed and item.opcode in ("tuple", *COLLECTIVES) else 1.0


def _shares_written(
    inner: Computation,
    computations: dict[str, Computation],
    results: int,
    aliased: Collection[int] = (),
) -> list[float]:
    """The share of each result that a fusion writes: 1, unless it updates a slice in place."""
    root = next(name for name, item in inner.items() if item.is_root)
    is_tuple = inner[root].opcode == "tuple"  # else one that another instruction makes, or no tuple
    names = inner[root].operands if is_tuple else [root] * results
    return [
        _share_written(name, number in aliased, inner, computations)
        for number, name in enumerate(names)
    ]


def _share_written(
    name: str, is_aliased: bool, inner: Computation, computations: dict[str, Computation]
) -> float:
    item = inner[name]
    if (viewed := _view_of(item)) is not None:
        return _share_written(item.operands[viewed], is_aliased, inner, computations)
    if item.opcode == "fusion":
        return _shares_written(computations[callees(item)[0]], computations, 1)[0]
    if item.opcode not in UPDATES:
        return 0.0 if is_aliased and item.opcode in PASSED else 1.0
    source = inner[item.operands[0]]
    while (viewed := _view_of(source)) is not None:
        source = inner[source.operands[viewed]]
    if source.opcode != "parameter":
        return 1.0  # what surrounds the update is written, too
    return _elements(inner[item.operands[UPDATES[item.opcode]]].shape) / _elements(item.shape)


def _view_of(item: Instruction) -> int | None:
    """The number of the operand whose elements an instruction passes on as they are, or None."""
    if item.opcode in VIEWS:
        return 0
    return _aliases(item).get(0) if item.opcode == "fusion" else None


def arrays(shape: str) -> list[str]:
    """The arrays of a shape: itself, or the parts of a tuple."""
    return [match[0] for match in ARRAY.finditer(shape)]


def device_bytes(shape: str) -> float:
    """Bytes in device memory of an array, or of all arrays of a tuple."""
    return sum(_bytes(match) for match in ARRAY.finditer(shape) if _is_on_device(match))


def _part(shape: str, part: str, share: float = 1.0) -> float:
    """Bytes of a part of an array, where that is in device memory."""
    match, inner = ARRAY.search(shape), ARRAY.search(part)
    return share * _bytes(inner) if match and inner and _is_on_device(match) else 0.0


def _is_on_device(match: re.Match[str]) -> bool:
    """Whether a layout names no other memory, as S(1) does on a TPU and S(5) the host's."""
    space = re.search(r"S\((\d+)\)", match[4] or "")
    return space is None or space[1] == "0"


def _bytes(match: re.Match[str]) -> float:
    """Bytes of an array, with the padding of its tiles."""
    bits = re.search(r"\d+", match[1])
    sizes = [int(n.lstrip("<=")) for n in match[2].split(",") if n]
    if tile := re.match(r"T\(([\d,]+)\)", match[4] or ""):
        tiles = [int(n) for n in tile[1].split(",")]
        order = [int(n) for n in (match[3] or "").split(",") if n]
        for axis, length in zip(order, reversed(tiles), strict=False):
            sizes[axis] = -(-sizes[axis] // length) * length
    width = int(bits[0]) / 8 if bits else float(match[1] != "token")  # pred has no bits
    return width * math.prod(sizes)


def _elements(shape: str) -> int:
    match = ARRAY.search(shape)
    return math.prod(int(n.lstrip("<=")) for n in match[2].split(",") if n) if match else 1
