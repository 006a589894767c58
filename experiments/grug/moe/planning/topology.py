"""The training step, compiled for hardware that is not here.

libtpu, and JAX's plugin for CUDA, compile for devices of theirs that no machine has to hold.
"""

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..model import BATCH
from ..plumbing.data import Batch
from ..plumbing.packing import DTYPES
from ..plumbing.record import VARIANT
from ..train import (
    TrainConfig,
    TrainError,
    TrainState,
    make_mesh,
    make_optimizer,
    make_train_step,
)
from .hlo import count

GIB = 2**30
FORMS = "[SLICESx]TPU:SHAPE (v5e:4x4, 2xv6e:4x4) or [NODESx]GPUSxGPU (8xh100, 2x8xh100)"
# Sides of a slice, and GiB of a chip that libtpu's compiler gives a program, by its own words.
TPUS = {"v4": (3, 30.75), "v5e": (2, 15.75), "v5p": (3, 95.74), "v6e": (2, 31.25)}
# What XLA's GPU compiler asks of a device (GpuDeviceInfoProto), from NVIDIA's data sheets, the
# limits of the compute capability (CUDA C++ Programming Guide) and deviceQuery.
HOPPER = {
    "major": 9,
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "l2_cache_size": 50 * 2**20,
    "shared_memory_per_core": 228 * 1024,
    "shared_memory_per_block_optin": 227 * 1024,
}
AMPERE = {
    "major": 8,
    "core_count": 108,
    "fpus_per_core": 64,
    "clock_rate_ghz": 1.41,
    "l2_cache_size": 40 * 2**20,
    "shared_memory_per_core": 164 * 1024,
    "shared_memory_per_block_optin": 163 * 1024,
}
GPUS = {
    "a100": AMPERE | {"device_memory_size": 85_100_068_864, "memory_bandwidth": 2039 * 10**9},
    "h100": HOPPER | {"device_memory_size": 84_942_979_072, "memory_bandwidth": 3352 * 10**9},
    "h200": HOPPER | {"device_memory_size": 151_397_597_184, "memory_bandwidth": 4800 * 10**9},
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Raises:
        ValueError: no such hardware, or nothing here that compiles for it.
    """

    name: str
    devices: Sequence[Any]
    memory: float
    """Bytes of a device that a program can have."""

    @staticmethod
    def named(name: str) -> "Topology":
        """From `v5e:4x4`, `2xv6e:4x4`, `8xh100` or `2x8xh100`."""
        tpu = re.fullmatch(r"(?:([1-9]\d*)x)?(v\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
        gpu = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)x([a-z]\w*)", name)
        if tpu and tpu[2] in TPUS and tpu[3].count("x") + 1 == TPUS[tpu[2]][0]:
            return Topology(name, *tpu_devices(int(tpu[1] or 1), tpu[2], tpu[3]))
        if gpu and gpu[3] in GPUS:
            return Topology(name, *gpu_devices(int(gpu[1] or 1), int(gpu[2]), gpu[3]))
        known = f"TPU is one of {', '.join(TPUS)} (v4 and v5p have three sides), GPU of"
        raise ValueError(f"topology {name!r}: write {FORMS}; {known} {', '.join(GPUS)}")


def tpu_devices(slices: int, kind: str, shape: str) -> tuple[Sequence[Any], float]:
    """A TPU's chips, and bytes of each."""
    need(f"{kind}:{shape}", "tpu", "libtpu")
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if set(shape) <= set("1x"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # one chip; a whole host has 2x2
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # as it runs: a chip's two cores are one device
    try:
        found = topologies.get_topology_desc(f"{kind}:{shape}", "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"topology {kind}:{shape}: {said}; such as {FORMS}") from error
    return found.devices, TPUS[kind][1] * GIB


def gpu_devices(nodes: int, each: int, kind: str) -> tuple[Sequence[Any], float]:
    """GPUs, and bytes of each: the share that JAX takes of its memory."""
    need(f"{each}x{kind}", "gpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
    facts = dict(GPUS[kind])
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
    device = "\n".join(f"  {k}: {v}" for k, v in facts.items() if k != "major")
    config = f"""gpu_device_info {{
  cuda_compute_capability {{ major: {facts["major"]} }}
{device}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "NVIDIA {kind.upper()}"
"""
    shape = f"1x{nodes}x{each}"
    found = topologies.get_topology_desc(kind, "cuda", target_config=config, topology=shape)
    return found.devices, share * facts["device_memory_size"]


def need(name: str, accelerator: str, *packages: str) -> None:
    """Raises ValueError unless one of the packages is installed."""
    if not any(any(importlib.metadata.distributions(name=package)) for package in packages):
        raise ValueError(
            f"{name} needs {packages[0]}, which is not installed here: use ./pants run launch -- "
            f"{VARIANT} --plan --topology ..., or run.py of a bundle for {accelerator}"
        )


def compile_step(cfg: TrainConfig, devices: Sequence[Any]) -> jax.stages.Compiled:
    """The step that `train` runs, from shapes alone, for these devices."""
    optimizer = make_optimizer(cfg)
    step: Any = make_train_step(cfg, optimizer)
    mesh = make_mesh(cfg, devices)
    by_row = NamedSharding(mesh, P(BATCH, None))
    shape = (cfg.batch_size, cfg.sequence_length)
    arrays: list[Any] = [jax.ShapeDtypeStruct(shape, t, sharding=by_row) for t in DTYPES]
    with jax.set_mesh(mesh):
        state = jax.eval_shape(jax.jit(lambda: TrainState.init(cfg, optimizer)))
        return step.lower(state, Batch(*arrays)).compile()


def compiled(cfg: TrainConfig, topology: Topology) -> Iterator[str]:
    """What the compiler says of the step, line by line.

    Raises:
        TrainError: it does not fit; with the compiler's own words where it gave up.
    """
    less = "more --microbatches or --model.remat-layers take less memory, as do more devices"
    devices = topology.devices
    yield f"compiling for {len(devices)} x {devices[0].device_kind}, {topology.name} ..."
    try:
        program = compile_step(cfg, devices)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise TrainError(f"does not fit on {topology.name}: {said} ({less})") from error
    memory: Any = program.memory_analysis()
    yield "memory per device, compiled"
    for name in ("argument", "output", "alias", "temp", "generated_code"):
        size = getattr(memory, f"{name}_size_in_bytes")
        yield f"  {MEMORY[name]:<24} {size / 2**20:>12,.1f} MiB"
    peak = memory.peak_memory_in_bytes
    fits = peak + memory.generated_code_size_in_bytes <= topology.memory
    verdict = f"of {topology.memory / GIB:.2f} GiB: {'fits' if fits else 'DOES NOT FIT'}"
    yield f"  {'peak':<24} {peak / 2**20:>12,.1f} MiB {verdict}"
    yield from work(cfg, program, len(devices))
    if not fits:
        peak = f"{peak / GIB:.1f} GiB at the peak exceed {topology.memory / GIB:.1f} GiB"
        raise TrainError(f"does not fit on {topology.name}: {peak} ({less})")


MEMORY = {
    "argument": "arguments",
    "output": "outputs",
    "alias": "  in place of arguments",
    "temp": "temporaries",
    "generated_code": "generated code",
}


def work(cfg: TrainConfig, program: jax.stages.Compiled, devices: int) -> Iterator[str]:
    """FLOPs and traffic of one step."""
    counts = count(program.as_text() or "")
    tokens = cfg.batch_size * cfg.sequence_length
    model = cfg.model.flops_per_token(cfg.sequence_length) * tokens / devices
    yield "FLOPs per step and device"
    yield f"  {'of the model':<24} {model:>12.4g}"
    more = f"{counts.matrix_flops / model:.2f} x the model's"
    yield f"  {'compiled':<24} {counts.matrix_flops:>12.4g}     {more}, matrix products alone"
    yield "collectives per step and device"
    for kind, size in sorted(counts.collectives.items()):
        yield f"  {kind:<24} {size / 2**20:>12,.1f} MiB"
    if not counts.collectives:
        yield "  none"
    if counts.endless:
        yield f"  ({counts.endless} loops of unknown length counted as one turn)"


def leave_hardware_alone(argv: Sequence[str]) -> None:
    """Where a topology is named, keeps JAX on the CPU; call it before anything is computed."""
    if any(flag.partition("=")[0] == "--topology" for flag in argv):
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # plans beside each other hold no chip
            "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA's warnings say less than the plan
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver to ask
            # nor a pod: without these libtpu looks for one, and complains
            **{"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"},
            "TPU_SKIP_MDS_QUERY": "1",
        }
        jax.config.update("jax_platforms", "cpu")  # JAX read the variable when it was imported
        jax.config.update("jax_enable_compilation_cache", False)  # it cannot be read again here
