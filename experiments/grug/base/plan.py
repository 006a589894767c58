"""What a run would take, from shapes alone. Plumbing: rarely edited, the same in every copy."""

import math
import os
from collections.abc import Iterator

import jax

from experiments.grug.base.model import MESH_AXES
from experiments.grug.base.topology import Topology, compiled
from experiments.grug.base.train import TrainConfig, TrainState, make_optimizer, mesh_shape


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


def activation_bytes(cfg: TrainConfig, mesh_shape: tuple[int, ...]) -> int:
    """Rough bytes a device keeps for the backward pass, and of one chunk's scores and logits.

    Counts what each layer saves (inputs, norms, projections, MLP) or, for a recomputed layer, its
    input alone plus one layer at work.
    """
    m, s = cfg.model, cfg.sequence_length
    replica, shards, parallel = mesh_shape
    rows = cfg.batch_size / cfg.microbatches / (replica * shards)
    width = 2 if m.compute_dtype == "bfloat16" else 4
    heads = (2 * m.n_heads + 2 * m.n_kv_heads) * m.head_dim
    stored = width * (4 * m.d_model + (heads + 2 * m.d_ff) / parallel)
    layer = rows * s * stored
    recomputed = m.remat_layers * rows * s * width * m.d_model + bool(m.remat_layers) * layer
    scores = 3 * 4 * rows * min(m.query_chunk, s) * s * m.n_heads / parallel
    logits = 2 * 4 * rows * min(m.loss_chunk, s) * m.vocab_size / parallel
    return int((m.n_layers - m.remat_layers) * layer + recomputed + max(scores, logits))


def device_memory() -> int:
    """Bytes one device has: its own memory, or its share of a CPU host's."""
    stats = jax.devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit", host // jax.local_device_count())
