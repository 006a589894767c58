"""What the compiler of other hardware says of a run's programs: memory, FLOPs, traffic, time."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from ..plumbing.branch import branch_point
from ..train import TrainConfig, TrainError, make_mesh
from .hlo import Counts, count
from .roofline import Roofline, lines_of, roofline
from .topology import Samplers, Topology, compile_programs
from .traffic import memory_traffic

GIB = 2**30
REMEDY = "more --microbatches or --model.remat-layers take less memory, as do more devices"
WASTE = 1.5  # compiled FLOPs over the model's, from which on a plan warns
MEMORY = {
    "argument": "arguments",
    "output": "outputs",
    "alias": "  in place of arguments",
    "temp": "temporaries",
    "generated_code": "generated code",
}


@dataclasses.dataclass
class Step:
    """The compiled step, on one device."""

    memory: dict[str, int]
    """Bytes of its memory, by part."""
    model_flops: float
    flops: float
    """Of all matrix products in the program."""
    uncounted_kernels: int
    """Calls of kernels whose FLOPs nobody tells."""
    bytes_accessed: float
    """Read from and written to device memory."""
    collectives: dict[str, float]
    """Bytes that a device puts in or gets out, whichever is more, by kind."""
    links_bytes: float
    """Sent to devices of the same slice or node, by the ring algorithms."""
    network_bytes: float
    """Sent to other slices or nodes."""
    endless_loops: int
    """Loops of unknown length, of which no turn counts."""
    per_turn: dict[str, float]
    """Bytes that one turn of each of these would add to collectives."""
    roofline: Roofline | None
    """None where no peaks of the hardware are published."""

    @property
    def ratio(self) -> float:
        """Compiled FLOPs over the model's."""
        return self.flops / self.model_flops


@dataclasses.dataclass
class Compiled:
    """What is known of the programs; it grows while they are compiled."""

    devices: int
    device_kind: str
    memory_limit: float
    """Bytes of one device that a program may use."""
    step: Step | None = None
    peaks: dict[str, float] = dataclasses.field(default_factory=dict)
    """Bytes of each program's peak."""
    error: str = ""
    """Why the run does not fit; empty if it does."""

    def asdict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = dataclasses.asdict(self)
        if self.step:
            values["step"]["ratio"] = self.step.ratio
        return values | {"fits": not self.error}


def compiled(
    cfg: TrainConfig, topology: Topology, make_sampler: Samplers, found: Compiled, price: float = 0
) -> Iterator[str]:
    """The plan's text line by line; `found` gets the same as numbers.

    Args:
        cfg: the run.
        topology: the hardware.
        make_sampler: launch.make_sampler.
        found: what is filled in.
        price: dollars per device and hour; 0 if it is not known.

    Raises:
        TrainError: a program does not fit; with the compiler's own message if it gave up.
    """
    yield f"compiling for {found.devices} x {found.device_kind}, {topology.name} ..."
    state = 0
    try:
        for name, program in compile_programs(cfg, topology.devices, make_sampler):
            memory: Any = program.memory_analysis()
            peak = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
            if name == "step":
                found.step = measure(cfg, topology, program, price)
                yield from text_of(found.step, cfg, price)
                yield "peak memory per device of each program"
                state = memory.alias_size_in_bytes  # what the step updates in place
            elif name != "initialization":
                peak += max(0, state - memory.argument_size_in_bytes)
            found.peaks[name] = peak
            yield f"  {name:<24} {peak / 2**20:>12,.1f} MiB"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found.error = " ".join(str(error).split())
        raise TrainError(f"does not fit on {topology.name}: {found.error} ({REMEDY})") from error
    largest = max(found.peaks, key=found.peaks.__getitem__)
    peak, limit = found.peaks[largest] / GIB, topology.memory / GIB
    yield f"  the largest is the {largest}, of {limit:.2f} GiB: {verdict(peak <= limit)}"
    if peak > limit:
        found.error = f"{peak:.1f} GiB at the peak of the {largest} exceed {limit:.1f} GiB"
        raise TrainError(f"does not fit on {topology.name}: {found.error} ({REMEDY})")


def verdict(fits: bool) -> str:
    """How a plan says whether a run fits."""
    return "fits" if fits else "DOES NOT FIT"


def measure(
    cfg: TrainConfig, topology: Topology, program: jax.stages.Compiled, price: float
) -> Step:
    """Memory, FLOPs, traffic and least time of the compiled step."""
    text, devices = program.as_text() or "", len(topology.devices)
    nodes = topology.nodes(make_mesh(cfg, topology.devices))
    counts = count(text, turns_of_endless=0, nodes=nodes)
    traffic = memory_traffic(text, turns_of_endless=0)
    tokens = cfg.batch_size * cfg.sequence_length
    model = cfg.model.flops_per_token(cfg.sequence_length) * tokens / devices
    memory: Any = program.memory_analysis()
    least = None
    if topology.chip:
        least = roofline(
            counts,
            traffic,
            model,
            chip=topology.chip,
            devices=devices,
            tokens=tokens,
            steps=own_steps(cfg),
            price=price,
        )
    return Step(
        memory={name: getattr(memory, f"{name}_size_in_bytes") for name in MEMORY},
        model_flops=model,
        flops=counts.matrix_flops,
        uncounted_kernels=counts.kernels,
        bytes_accessed=traffic,
        collectives=dict(counts.collectives),
        links_bytes=counts.wire.links,
        network_bytes=counts.wire.network,
        endless_loops=counts.endless,
        per_turn=per_turn(text, counts) if counts.endless else {},
        roofline=least,
    )


def own_steps(cfg: TrainConfig) -> int:
    """Steps that the run itself makes: of a branch, those after its parent's."""
    return cfg.steps - (branch_point(cfg.branch_from)[1] or 0)


def per_turn(text: str, none: Counts) -> dict[str, float]:
    """What one turn of each loop of unknown length adds to the collectives, where it adds any."""
    once = count(text).collectives
    added = {kind: size - none.collectives.get(kind, 0) for kind, size in once.items()}
    return {kind: size for kind, size in added.items() if size}


def text_of(step: Step, cfg: TrainConfig, price: float) -> Iterator[str]:
    """The compiled step, line by line."""
    yield "memory per device, of the compiled step"
    for name, label in MEMORY.items():
        yield f"  {label:<24} {step.memory[name] / 2**20:>12,.1f} MiB"
    yield "FLOPs per step and device"
    yield f"  {'of the model':<24} {step.model_flops:>12.4g}"
    ratio = f"{step.ratio:.2f} x the model's"
    yield f"  {'compiled':<24} {step.flops:>12.4g}     {ratio}, matrix products alone"
    if step.uncounted_kernels:
        yield f"  and those of {step.uncounted_kernels} calls of kernels, which nobody tells"
    if step.ratio > WASTE:
        yield (
            f"warning: the program computes {step.ratio:.2f} x the model's FLOPs, more than "
            f"{WASTE} x: look for recomputed layers, masked scores and padding"
        )
    yield "traffic per step and device"
    yield f"  {'device memory':<24} {step.bytes_accessed / 2**20:>12,.1f} MiB"
    yield "collectives per step and device"
    yield from table(step.collectives)
    if not step.collectives:
        yield "  none"
    if step.endless_loops:
        yield f"one turn of each of {step.endless_loops} loops of unknown length would add"
        yield from table(step.per_turn)
    if step.roofline:
        yield from lines_of(step.roofline, own_steps(cfg), price)
        if cfg.model.compute_dtype == "float32":
            yield "  its float32 products count at the peak of bfloat16, which they stay below"


def table(sizes: dict[str, float]) -> Iterator[str]:
    """Bytes by kind, line by line."""
    for kind, size in sorted(sizes.items()):
        yield f"  {kind:<24} {size / 2**20:>12,.1f} MiB"
