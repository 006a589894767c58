"""What a compiled program does, counted from its text.

XLA's own cost analysis counts a loop's body once; here it counts as often as it runs.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from .wire import Wire, is_alone, sent

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)\)?(.*)")
SHAPE = re.compile(r"\b([a-z]+[\da-z]*)\[([\d,]*)\]")
# Beginnings of the targets of custom calls that run a kernel: Pallas on a TPU, Pallas and Triton on
# a GPU, and cuDNN's attention.
KERNELS = ("tpu_custom_call", "mosaic_gpu", "__gpu$xla.gpu.triton", "triton_kernel", "__cudnn$fmha")
CONTINUED = re.compile(r'\n(?="|\}\})')
CALLED = re.compile(r"\b(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a compiled program, taken apart."""

    shape: str
    opcode: str
    inside: str
    """The text in its parentheses: the operands, or a constant's value."""
    attributes: str
    is_root: bool = False
    """Whether its value is that of its computation."""

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        return re.findall(r"%([\w.-]+)", self.inside)

    def sizes(self, name: str) -> list[int]:
        """Numbers of an attribute such as `name={1,2}`, `name=3` or `"name":["1","2"]`, or []."""
        match = re.search(rf'\b{name}"?[=:][{{\[]?"?([\d",]*)', self.attributes)
        return [int(n) for n in re.findall(r"\d+", match[1])] if match else []


Computation = dict[str, Instruction]


@dataclasses.dataclass
class Counts:
    """FLOPs and traffic of one execution of a program, on one device."""

    matrix_flops: float = 0.0
    """FLOPs of matrix products; a multiplication and an addition count as two."""
    collectives: dict[str, float] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(float)
    )
    """Bytes by kind: a device's input or output, whichever is larger. A kind `... between slices`
    crosses the network from one TPU slice to another."""
    wire: Wire = dataclasses.field(default_factory=Wire)
    """Bytes that a device sends for these, by the usual ring algorithms."""
    endless: int = 0
    """Loops of unknown length."""
    kernels: int = 0
    """Calls of kernels whose FLOPs the compiler does not tell, so that they are not counted."""


def count(text: str, turns_of_endless: int = 1, nodes: Sequence[int] = ()) -> Counts:
    """Counts a module given as `compiled.as_text()`; every branch of a conditional counts.

    Args:
        text: the module.
        turns_of_endless: turns that a loop of unknown length counts as.
        nodes: the TPU slice or the GPUs' node that each device is in; by default one for all.
    """
    computations, entry = parse(text)
    counts = Counts()
    header = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    nodes = nodes or [0] * int(header[1] if header else 1)

    def walk(name: str, times: int, chains: set[str] | None = None) -> None:
        """Counts a computation that runs `times` times.

        `chains`, in a fusion, names the collectives that its neighbours were part of: a TPU splits
        one collective over several fusions, and it counts once.
        """
        computation, chains_inside = computations[name], set()
        for item in computation.values():
            counts.matrix_flops += times * matrix_flops(item, computation)
            counts.kernels += times * is_opaque(item)
            kind, size = collective(item, computation, name)
            chain = "".join(re.findall(r'\bch(?:annel|ain)_id="?\d+', item.attributes))
            if kind and (chains is None or chain not in chains):
                counts.collectives[kind] += times * size
                counts.wire += sent(kind, size, item.attributes, nodes) * times
                if chains is not None:
                    chains.add(chain)
            length = loop_length(item, computations)
            turns = turns_of_endless if length is None else length
            counts.endless += length is None
            for called in callees(item):
                walk(called, times * turns, chains_inside if item.opcode == "fusion" else None)

    walk(entry, 1)
    return counts


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module by name, and the name of its entry computation."""
    computations, entry, computation = {}, "", {}
    # A kernel's metadata has lines of its own, in the middle of the instruction that calls it.
    for line in CONTINUED.sub(" ", text).splitlines():
        if match := INSTRUCTION.match(line):
            computation[match[2]] = Instruction(*match.groups()[2:], is_root=bool(match[1]))
        elif match := COMPUTATION.match(line):
            computation = computations[match[2]] = {}
            entry = match[2] if match[1] else entry
    return computations, entry


def callees(item: Instruction) -> list[str]:
    """Names of the computations that an instruction runs, except a reduction's operator."""
    if item.opcode not in ("while", "fusion", "call", "conditional", "async-start"):
        return []
    branches = re.search(r"branch_computations=\{([^}]*)\}", item.attributes)
    listed = re.findall(r"%([\w.-]+)", branches[1]) if branches else []
    return [*listed, *CALLED.findall(item.attributes)]


def loop_length(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Turns of a loop: as the compiler noted them, or the limit of its counter; None if unknown.

    Anything else runs what it calls once.
    """
    if loop.opcode != "while":
        return 1
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.attributes)
    items = computations[condition[1]].values() if condition else ()
    constants = [int(i.inside) for i in items if (i.opcode, i.shape[:5]) == ("constant", "s32[]")]
    return constants[0] if len(constants) == 1 else None


def collective(item: Instruction, computation: Computation, name: str) -> tuple[str, float]:
    """Kind and bytes of a collective, ("", 0) for anything else."""
    kind = item.opcode.removesuffix("-start")
    if kind in COLLECTIVES and not is_alone(item.attributes):
        operand_bytes = sum(size_of(computation[operand].shape) for operand in item.operands)
        if kind == "all-gather":
            is_start = item.opcode != kind  # its result holds the operands too
            return kind, size_of(item.shape) - (operand_bytes if is_start else 0)
        # A TPU writes a reduce-scatter as a fusion of an all-reduce and the slice to keep.
        return "reduce-scatter" if name.startswith("all-reduce-scatter") else kind, operand_bytes
    if item.opcode == "send":
        transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', item.attributes)
        if transfer:
            sent = size_of(computation[item.operands[0]].shape)
            return f"{transfer[1].lower().replace('_', '-')} between slices", sent
    return "", 0


def size_of(shape: str) -> float:
    """Bytes of an array, or of all arrays of a tuple."""
    size = 0.0
    for dtype, dimensions in SHAPE.findall(shape):
        bits = re.search(r"\d+", dtype)
        item_size = int(bits[0]) / 8 if bits else 1  # pred has no bits in its name
        size += item_size * math.prod(int(n) for n in dimensions.split(",") if n)
    return size


def extents(shape: str) -> list[int]:
    """Dimensions of an array, or of the first one of a tuple."""
    match = SHAPE.search(shape)
    return [int(n) for n in match[2].split(",") if n] if match else []


def matrix_flops(item: Instruction, computation: Computation) -> float:
    """FLOPs of one matrix product, 0 for anything else."""
    if item.opcode == "convolution":
        return convolution_flops(item, computation)
    contracted = item.sizes("lhs_contracting_dims")
    if item.opcode == "custom-call":
        if estimate := told_flops(item):
            return estimate
        contracted = item.sizes("lhs_contracting_dimensions") if "gemm" in item.attributes else []
    elif item.opcode != "dot":
        return 0
    if not contracted:
        return 0
    lhs = extents(computation[item.operands[0]].shape)
    return 2.0 * math.prod(extents(item.shape)) * math.prod(lhs[i] for i in contracted)


def told_flops(item: Instruction) -> float:
    """FLOPs that a kernel's caller or author tells, else 0.

    An author does by a cost estimate, as of ragged_dot. A caller does by the frontend attribute
    flops_PART, which holds for those of its kernels that have _PART_ in their name.
    """
    if estimate := item.sizes("flops"):
        return float(estimate[0])
    name = re.search(r'op_name="([^"]*)"', item.attributes)
    for part, flops in re.findall(r'\bflops_(\w+)="(\d+)"', item.attributes):
        if name and f"_{part}_" in name[1]:
            return float(flops)
    return 0.0


def is_opaque(item: Instruction) -> bool:
    """Whether it is a kernel whose FLOPs nobody tells."""
    return any(f'"{name}' in item.attributes for name in KERNELS) and not told_flops(item)


def convolution_flops(item: Instruction, computation: Computation) -> float:
    """FLOPs of a convolution: a TPU's matrix products are ones, with batches as spatial axes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", item.attributes)
    if not labels:
        return 0
    lhs = dict(zip(labels[1], extents(computation[item.operands[0]].shape), strict=True))
    out = dict(zip(labels[3], extents(item.shape), strict=True))
    window = dict(re.findall(r"(\w+)=([-\dx_]+)", _window(item)))
    places = 1.0
    for axis, size in enumerate(window.get("size", "").split("x") if window else ()):
        places *= _places(axis, int(size), lhs[str(axis)], out[str(axis)], window)
    groups = math.prod(item.sizes("feature_group_count") + item.sizes("batch_group_count"))
    return 2.0 * lhs["f"] * lhs["b"] * out["f"] * places / groups


def _window(item: Instruction) -> str:
    match = re.search(r"window=\{([^}]*)\}", item.attributes)
    return match[1] if match else ""


def _places(axis: int, size: int, lhs: int, out: int, window: dict[str, str]) -> int:
    """Pairs of a window position and an output position on one axis that meet an input element."""

    def option(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    stride, dilation, inner = (int(option(n, "1")) for n in ("stride", "lhs_dilate", "rhs_dilate"))
    low = int(option("pad", "0_0").split("_")[0])
    element = np.arange(out)[:, None] * stride + np.arange(size)[None] * inner - low
    return int(
        np.sum((element >= 0) & (element <= (lhs - 1) * dilation) & (element % dilation == 0))
    )
