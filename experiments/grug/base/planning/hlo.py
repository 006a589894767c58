"""What a compiled program does, counted from its text.

XLA's own cost analysis counts a loop's body once; here it counts as often as it runs.
"""

import collections
import dataclasses
import math
import re

import numpy as np

COLLECTIVES = (
    *("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
)
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)?(.*)")
SHAPE = re.compile(r"\b([a-z]+[\da-z]*)\[([\d,]*)\]")
ALONE = re.compile(r"replica_groups=(\{\{\d+\}|\[\d+,1\]<=)")  # groups of one device
GROUPS = re.compile(r"replica_groups=mesh\[([^]]*)\] \{([^}]*)\}")  # (axes' sizes, axes of a group)
CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    shape: str
    opcode: str
    inside: str
    """What stands in its parentheses: the operands, or a constant's value."""
    attributes: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.inside)

    def sizes(self, name: str) -> list[int]:
        """`name={1,2}`, `name=3` or `"name":["1","2"]` among the attributes; [] without it."""
        found = re.search(rf'\b{name}"?[=:][{{\[]?"?([\d",]*)', self.attributes)
        return [int(n) for n in re.findall(r"\d+", found[1])] if found else []


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Counts:
    """Of one run of a program, on one device."""

    matrix_flops: float = 0.0
    """Of matrix products: a multiplication and an addition each."""
    collectives: dict[str, float] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(float)
    )
    """Bytes by kind: what a device puts in or gets out, whichever is more. A kind `... between
    slices` crosses the network from one TPU slice to another."""
    endless: int = 0
    """Loops whose length the text does not tell; counted as one turn."""


def count(text: str) -> Counts:
    """Counts a module given as `compiled.as_text()`; every branch of a conditional counts."""
    computations, entry = parse(text)
    counts = Counts()

    def walk(name: str, times: int, chains: set[str] | None = None) -> None:
        """`chains`, in a fusion: collectives that earlier fusions beside it are a part of."""
        here, begun = computations[name], set()
        for item in here.values():
            counts.matrix_flops += times * matrix_flops(item, here)
            kind, size = collective(item, here, name)
            chain = "".join(re.findall(r'\bch(?:annel|ain)_id="?\d+', item.attributes))
            if kind and (chains is None or chain not in chains):
                counts.collectives[kind] += times * size
                if chains is not None:
                    chains.add(chain)
            turns = 1
            if item.opcode == "while":
                known = loop_length(item, computations)
                turns, counts.endless = known or 1, counts.endless + (known is None)
            for called in callees(item):
                walk(called, times * turns, begun if item.opcode == "fusion" else None)

    walk(entry, 1)
    return counts


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module by name, and the name of the one that is run."""
    computations, entry, here = {}, "", {}
    for line in text.splitlines():
        if found := INSTRUCTION.match(line):
            here[found[1]] = Instruction(*found.groups()[1:])
        elif found := COMPUTATION.match(line):
            here = computations[found[2]] = {}
            entry = found[2] if found[1] else entry
    return computations, entry


def callees(item: Instruction) -> list[str]:
    """The computations that an instruction runs, less a reduction's operator."""
    if item.opcode not in ("while", "fusion", "call", "conditional", "async-start"):
        return []
    branches = re.search(r"branch_computations=\{([^}]*)\}", item.attributes)
    listed = re.findall(r"%([\w.-]+)", branches[1]) if branches else []
    return [*listed, *CALLED.findall(item.attributes)]


def loop_length(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Turns of a loop: as the compiler noted them, or the limit of a count from zero."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.attributes)
    items = computations[condition[1]].values() if condition else ()
    constants = [int(i.inside) for i in items if (i.opcode, i.shape[:5]) == ("constant", "s32[]")]
    return constants[0] if len(constants) == 1 else None


def is_alone(item: Instruction) -> bool:
    """Whether each group of a collective is one device, so that it moves nothing."""
    if not (found := GROUPS.search(item.attributes)):
        return bool(ALONE.search(item.attributes))
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
    return all(sizes[axis] == "1" for axis in re.findall(r"'([^']+)'", found[2]))


def collective(item: Instruction, here: Computation, name: str) -> tuple[str, float]:
    """Kind and bytes of a collective, ("", 0) for anything else."""
    kind = item.opcode.removesuffix("-start")
    if kind in COLLECTIVES and not is_alone(item):
        given = sum(size_of(here[operand].shape) for operand in item.operands)
        if kind == "all-gather":
            begins = item.opcode != kind  # its result holds the operands too
            return kind, size_of(item.shape) - begins * given
        # A TPU's way to write it: a fusion of an all-reduce and the slice that stays.
        return "reduce-scatter" if name.startswith("all-reduce-scatter") else kind, given
    if item.opcode == "send":
        transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', item.attributes)
        if transfer:
            sent = size_of(here[item.operands[0]].shape)
            return f"{transfer[1].lower().replace('_', '-')} between slices", sent
    return "", 0


def size_of(shape: str) -> float:
    """Bytes of an array, or of all arrays of a tuple."""
    size = 0.0
    for dtype, dimensions in SHAPE.findall(shape):
        bits = re.search(r"\d+", dtype)  # pred has none
        size += math.prod(map(int, dimensions.split(",") if dimensions else ())) * (
            int(bits[0]) / 8 if bits else 1
        )
    return size


def extents(shape: str) -> list[int]:
    """Dimensions of an array, or of the first one of a tuple."""
    found = SHAPE.search(shape)
    return [int(n) for n in found[2].split(",") if n] if found else []


def matrix_flops(item: Instruction, here: Computation) -> float:
    """FLOPs of one matrix product, 0 for anything else."""
    if item.opcode == "convolution":
        return convolution_flops(item, here)
    contracted = item.sizes("lhs_contracting_dims")
    if item.opcode == "custom-call":
        if estimate := item.sizes("flops"):  # a TPU kernel's own, such as that of ragged_dot
            return estimate[0]
        contracted = item.sizes("lhs_contracting_dimensions") if "gemm" in item.attributes else []
    elif item.opcode != "dot":
        return 0
    if not contracted:
        return 0
    left = extents(here[item.operands[0]].shape)
    return 2.0 * math.prod(extents(item.shape)) * math.prod(left[i] for i in contracted)


def convolution_flops(item: Instruction, here: Computation) -> float:
    """A TPU's matrix products are convolutions, batches their spatial dimensions."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", item.attributes)
    if not labels:
        return 0
    left = dict(zip(labels[1], extents(here[item.operands[0]].shape), strict=True))
    out = dict(zip(labels[3], extents(item.shape), strict=True))
    window = dict(re.findall(r"(\w+)=([-\dx_]+)", _window(item)))
    places = 1.0
    for axis, size in enumerate(window.get("size", "").split("x") if window else ()):
        places *= _places(axis, int(size), left[str(axis)], out[str(axis)], window)
    groups = math.prod(item.sizes("feature_group_count") + item.sizes("batch_group_count"))
    return 2.0 * left["f"] * left["b"] * out["f"] * places / groups


def _window(item: Instruction) -> str:
    found = re.search(r"window=\{([^}]*)\}", item.attributes)
    return found[1] if found else ""


def _places(axis: int, size: int, left: int, out: int, window: dict[str, str]) -> int:
    """Pairs of a window's and an output's position along one axis that meet an input's element."""

    def of(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    stride, dilation, inner = (int(of(n, "1")) for n in ("stride", "lhs_dilate", "rhs_dilate"))
    low = int(of("pad", "0_0").split("_")[0])
    at = np.arange(out)[:, None] * stride + np.arange(size)[None] * inner - low
    return int(np.sum((at >= 0) & (at <= (left - 1) * dilation) & (at % dilation == 0)))
