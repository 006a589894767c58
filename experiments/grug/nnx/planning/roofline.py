"""The least time of a compiled step by the published peaks of a chip, and what a run then costs.

A roofline (doi:10.1145/1498765.1498785): matrix products, device memory and each kind of link work
beside each other, none of them ever waits, and the slowest binds. A real step takes longer.
"""

import dataclasses
from collections.abc import Iterator

from ..plumbing.record import peak_flops_of
from .hlo import Counts


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one device in bytes per second; record.PEAK_FLOPS has those in FLOPs."""

    kind: str
    """JAX's name of it."""
    memory: float
    """Reads and writes of device memory together."""
    links: float
    """Sent over all links to devices of the same slice or node, in one direction."""
    network: float
    """Sent over the network to other slices or nodes: its share of its host's cards."""


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, which give links in both directions (400,
# 1200 and 800 GB/s) and the network in Gbit/s per chip or per pod of 256. A v4 has 6 links of 50
# GB/s (arXiv:2304.01433, table 4), and a host of four 25 GB/s (jax-ml.github.io/scaling-book/tpus).
# GPUs: nvidia.com/en-us/data-center/{a100,h100,h200}, the 80 GB A100 and SXM; NVLink's 600 and 900
# GB/s are of both directions. Network: a card per GPU, of 200 Gbit/s in a DGX A100 and 400 in a DGX
# H100 or H200 (docs.nvidia.com/dgx).
CHIPS = {
    "v4": Chip("TPU v4", memory=1200e9, links=300e9, network=6.25e9),
    "v5e": Chip("TPU v5 lite", memory=819e9, links=200e9, network=3.125e9),
    "v5p": Chip("TPU v5", memory=2765e9, links=600e9, network=6.25e9),
    "v6e": Chip("TPU v6 lite", memory=1638e9, links=400e9, network=12.5e9),
    "a100": Chip("NVIDIA A100", memory=2039e9, links=300e9, network=25e9),
    "h100": Chip("NVIDIA H100", memory=3352e9, links=450e9, network=50e9),
    "h200": Chip("NVIDIA H200", memory=4800e9, links=450e9, network=50e9),
}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least time of a step, and what follows from it."""

    seconds: dict[str, float]
    """Least time by what takes it: compute, memory, links and network."""
    peaks: dict[str, float]
    """What a device does of each in a second: FLOPs and bytes."""
    binds: str
    """Which of them takes the longest."""
    step_seconds: float
    mfu: float
    """The model's FLOPs over the peak ones of the step's time: no run can have a higher MFU."""
    tokens_per_second: float
    """Of all devices together."""
    hours: float
    """Of all steps, without compilation, evaluations and saves."""
    device_hours: float
    dollars: float | None
    """At the price given."""


def roofline(
    counts: Counts,
    memory_bytes: float,
    model_flops: float,
    *,
    chip: Chip,
    devices: int,
    tokens: int,
    steps: int,
    price: float = 0.0,
) -> Roofline:
    """The roofline of a step.

    Args:
        counts: of one step, on one device.
        memory_bytes: read from and written to device memory by one step, on one device.
        model_flops: of the model, in one step, on one device.
        chip: the peaks of a device.
        devices: how many there are.
        tokens: of one step, on all devices.
        steps: of the run.
        price: dollars per device and hour; 0 if it is not known.
    """
    flops = peak_flops_of(chip.kind)
    assert flops, chip.kind  # record.PEAK_FLOPS has each
    rates = {"memory": chip.memory, "links": chip.links, "network": chip.network}
    peaks = {"compute": flops, **rates}
    work = {
        "compute": counts.matrix_flops,
        "memory": memory_bytes,
        "links": counts.wire.links,
        "network": counts.wire.network,
    }
    seconds = {name: amount / peaks[name] for name, amount in work.items()}
    binds = max(seconds, key=seconds.__getitem__)
    step = seconds[binds]
    hours = steps * step / 3600
    return Roofline(
        seconds=seconds,
        peaks=peaks,
        binds=binds,
        step_seconds=step,
        mfu=model_flops / step / flops,
        tokens_per_second=tokens / step,
        hours=hours,
        device_hours=hours * devices,
        dollars=hours * devices * price if price else None,
    )


def lines_of(least: Roofline, steps: int, price: float) -> Iterator[str]:
    """The roofline of a run of so many steps, line by line."""
    yield "least step time, by the published peaks of a device"
    for name, seconds in least.seconds.items():
        if seconds or name != "network":
            unit, size = ("TFLOP/s", 1e12) if name == "compute" else ("GB/s", 1e9)
            peak = f"at {least.peaks[name] / size:,.5g} {unit}"
            yield f"  {name:<24} {seconds * 1e3:>12,.2f} ms  {peak}"
    bounds = f"at most {least.mfu:.1%} MFU and {least.tokens_per_second:,.0f} tokens per second"
    yield f"  {least.binds} binds: {bounds}"
    hours = f"{least.hours:,.2f} hours, {least.device_hours:,.1f} device-hours"
    money = f", {least.dollars:,.2f} dollars at {price:g}" if least.dollars is not None else ""
    yield f"  {steps:,} steps take at least {hours}{money}"
