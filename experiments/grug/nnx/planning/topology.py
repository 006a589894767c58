"""A run's programs, compiled for hardware that is not here.

libtpu and JAX's CUDA plugin compile for a description of devices; none need be present.
"""

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..model import BATCH
from ..plumbing.data import Batch
from ..plumbing.packing import DTYPES
from ..plumbing.record import VARIANT
from ..plumbing.watch import make_norms
from ..train import (
    TrainConfig,
    TrainState,
    make_eval_step,
    make_mesh,
    make_optimizer,
    make_train_step,
    split_rows,
)
from .roofline import CHIPS, Chip

GIB = 2**30
FORMS = "[SLICESx]TPU:SHAPE (v5e:4x4, 2xv6e:4x4) or [NODESx]GPUSxGPU (8xh100, 2x8xh100)"
# Dimensions of a slice's shape, and GiB per chip that a program may use, as libtpu's compiler says.
TPUS = {"v4": (3, 30.75), "v5e": (2, 15.75), "v5p": (3, 95.74), "v6e": (2, 31.25)}
# What XLA's GPU compiler must know about a device (GpuDeviceInfoProto), from NVIDIA's data sheets,
# the limits of the compute capability (CUDA C++ Programming Guide) and deviceQuery.
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
    "a100": AMPERE | {"device_memory_size": 85_100_068_864},
    "h100": HOPPER | {"device_memory_size": 84_942_979_072},
    "h200": HOPPER | {"device_memory_size": 151_397_597_184},
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Raises:
        ValueError: there is no such hardware, or nothing is installed that compiles for it.
    """

    name: str
    devices: Sequence[Any]
    memory: float
    """Bytes per device that a program may use."""
    chip: Chip | None = None
    """Peaks of a device, where they are published."""

    @staticmethod
    def named(name: str) -> "Topology":
        """From `v5e:4x4`, `2xv6e:4x4`, `8xh100` or `2x8xh100`."""
        tpu = re.fullmatch(r"(?:([1-9]\d*)x)?(v\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
        gpu = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)x([a-z]\w*)", name)
        if tpu and tpu[2] in TPUS and tpu[3].count("x") + 1 == TPUS[tpu[2]][0]:
            return Topology(name, *tpu_devices(int(tpu[1] or 1), tpu[2], tpu[3]), CHIPS[tpu[2]])
        if gpu and gpu[3] in GPUS:
            devices, memory = gpu_devices(int(gpu[1] or 1), int(gpu[2]), gpu[3])
            return Topology(name, devices, memory, CHIPS[gpu[3]])
        kinds = f"TPU is one of {', '.join(TPUS)} (v4 and v5p have three sides), GPU of"
        raise ValueError(f"topology {name!r}: write {FORMS}; {kinds} {', '.join(GPUS)}")

    def nodes(self, mesh: jax.sharding.Mesh) -> list[int]:
        """The TPU slice or the GPUs' node of each device, in the order of a program's devices."""
        name = "slice_index" if platform_of(self.name) == "tpu" else "process_index"
        return [getattr(device, name, 0) for device in mesh.devices.flat]


def platform_of(name: str) -> Literal["tpu", "gpu"]:
    """JAX's name of the platform of a topology, by its form alone."""
    return "tpu" if ":" in name else "gpu"


def tpu_devices(slices: int, kind: str, shape: str) -> tuple[Sequence[Any], float]:
    """The chips of TPU slices, and the bytes per chip that a program may use."""
    need(f"{kind}:{shape}", "tpu", "libtpu")
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if set(shape) <= set("1x"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # one chip; a whole host has 2x2
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # as it runs: a chip's two cores are one device
    try:
        description = topologies.get_topology_desc(f"{kind}:{shape}", "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        message = str(error).partition("\n")[0]
        raise ValueError(f"topology {kind}:{shape}: {message}; such as {FORMS}") from error
    return description.devices, TPUS[kind][1] * GIB


def gpu_devices(nodes: int, each: int, kind: str) -> tuple[Sequence[Any], float]:
    """The GPUs of all nodes, and the bytes per GPU that JAX reserves."""
    need(f"{each}x{kind}", "gpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
    facts = GPUS[kind] | {"memory_bandwidth": int(CHIPS[kind].memory)}
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
    description = topologies.get_topology_desc(kind, "cuda", target_config=config, topology=shape)
    return description.devices, share * facts["device_memory_size"]


def need(name: str, accelerator: str, *packages: str) -> None:
    """Raises ValueError unless one of the packages is installed."""
    if not any(any(importlib.metadata.distributions(name=package)) for package in packages):
        raise ValueError(
            f"{name} needs {packages[0]}, which is not installed here: use ./pants run launch -- "
            f"{VARIANT} --plan --topology ..., or run.py of a bundle for {accelerator}"
        )


Samplers = Callable[[TrainConfig], tuple[Callable[..., Any], tuple[int, int]]]
"""launch.make_sampler: the closing sample's program, and the shape of its token ids."""


def compile_programs(
    cfg: TrainConfig, devices: Sequence[Any], make_sampler: Samplers
) -> Iterator[tuple[str, jax.stages.Compiled]]:
    """(name, program) of all that a run runs, compiled for these devices from shapes alone.

    The step comes first. The others find the state of a run in memory beside their arguments.
    """
    optimizer = make_optimizer(cfg)
    step: Any = make_train_step(cfg, optimizer)
    evaluation: Any = make_eval_step()
    mesh = make_mesh(cfg, devices)
    by_row, whole = NamedSharding(mesh, P(BATCH, None)), NamedSharding(mesh, P(None))

    def batch(rows: int) -> Any:
        shape = (rows, cfg.sequence_length)
        arrays: list[Any] = [jax.ShapeDtypeStruct(shape, t, sharding=by_row) for t in DTYPES]
        return Batch(*arrays)

    lengths = jax.ShapeDtypeStruct((cfg.model.vocab_size,), jnp.float32, sharding=whole)
    with jax.set_mesh(mesh):
        init = jax.jit(lambda: TrainState.init(cfg, optimizer))
        state = jax.eval_shape(init)
        yield "step", step.lower(state, batch(cfg.batch_size)).compile()
        if cfg.watch_every:
            norms: Any = make_norms(cfg, make_train_step, optimizer, split_rows)
            yield "watch", norms.lower(state, batch(cfg.batch_size)).compile()
        part = batch(cfg.batch_size // cfg.microbatches)
        yield "evaluation", evaluation.lower(state.model, part, lengths).compile()
        sampler, shape = make_sampler(cfg)
        tokens = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=by_row)
        length = jax.ShapeDtypeStruct((), jnp.int32)
        lowered: Any = jax.jit(sampler).lower(state.model, tokens, length)
        yield "sample", lowered.compile()
        yield "initialization", init.lower().compile()


def leave_hardware_alone(argv: Sequence[str]) -> None:
    """Keeps JAX on the CPU if --topology is given; call it before anything is computed."""
    if any(flag.partition("=")[0] == "--topology" for flag in argv):
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # plans beside each other hold no chip
            "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA's warnings say less than the plan
            "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # there is no driver to ask
            # Without these, libtpu looks for a pod and complains that there is none.
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_SKIP_MDS_QUERY": "1",
        }
        jax.config.update("jax_platforms", "cpu")  # JAX read the variable when it was imported
        jax.config.update("jax_enable_compilation_cache", False)  # it cannot be read again here
