"""What a run would take, from shapes alone: `--plan`."""

import math
import os
from collections.abc import Iterator

import jax

from ..model import BATCH, MESH_AXES
from ..train import TrainConfig, TrainState, make_optimizer, mesh_shape
from .topology import Topology, compiled


def plan(cfg: TrainConfig, topology: str = "") -> Iterator[str]:
    """What a run would take here, or on a named topology, whose compiler is then asked.

    Raises:
        ValueError: no such topology, or nothing here that compiles for it.
        TrainError: the step does not fit there.
    """
    if not topology:
        yield by_shapes(cfg, jax.device_count(), device_memory())
        return
    there = Topology.named(topology)
    yield by_shapes(cfg, len(there.devices), there.memory)
    yield from compiled(cfg, there)


def by_shapes(cfg: TrainConfig, devices: int, limit: float) -> str:
    """What a run would take of devices with `limit` bytes each, by shapes alone."""
    shape = mesh_shape(cfg, devices)
    explicit = (jax.sharding.AxisType.Explicit,) * len(MESH_AXES)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh(shape, MESH_AXES, explicit)):
        state = jax.eval_shape(lambda: TrainState.init(cfg, make_optimizer(cfg)))

    def per_device(tree) -> int:
        leaves = [x for x in jax.tree.leaves(tree) if x.sharding]  # None: an unsharded scalar
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    parameters = sum(x.size for x in jax.tree.leaves(state.model))
    idle = cfg.model.idle_parameters()
    tokens = cfg.steps * cfg.batch_size * cfg.sequence_length
    flops = cfg.model.flops_per_token(cfg.sequence_length)
    memory = {
        "weights": per_device(state.model),
        "gradients": per_device(state.model),
        "optimizer": per_device(state.optimizer),
        "weights' running average": per_device(state.ema),
        "activations (estimate)": activation_bytes(cfg, shape),
    }
    total = sum(memory.values())
    fits = f"of {limit / 2**30:.1f} GiB: {'fits' if total < limit else 'DOES NOT FIT'}"
    shardings = {
        jax.tree_util.keystr(path, simple=True, separator="."): x
        for path, x in jax.tree.leaves_with_path(state.model)
    }
    return "\n".join(
        [
            f"parameters        {parameters:,}",
            *([f"active per token  {parameters - idle:,}"] if idle else []),
            f"FLOPs per token   {flops:.3g}",
            f"tokens            {tokens:,} in {cfg.steps:,} steps",
            f"FLOPs in total    {flops * tokens:.3g}",
            f"mesh              {dict(zip(MESH_AXES, shape, strict=True))}",
            "memory per device",
            *(f"  {name:<24} {size / 2**20:>12,.1f} MiB" for name, size in memory.items()),
            f"  {'together (estimate)':<24} {total / 2**20:>12,.1f} MiB {fits}",
            "weights and their sharding",
            *(f"  {n:<24} {x.shape!s:<24} {x.sharding.spec}" for n, x in shardings.items()),
        ]
    )


def activation_bytes(cfg: TrainConfig, shape: tuple[int, ...]) -> int:
    """The model's own estimate, for a device's rows of one microbatch."""
    mesh = dict(zip(MESH_AXES, shape, strict=True))
    rows = cfg.batch_size / cfg.microbatches / math.prod(mesh[axis] for axis in BATCH)
    return int(cfg.model.activation_bytes(rows, cfg.sequence_length, mesh))


def device_memory() -> int:
    """Bytes one device has: its own memory, or its share of a CPU host's."""
    stats = jax.devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit", host // jax.local_device_count())
