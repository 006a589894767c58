"""What a run would take, from shapes alone: `--plan`."""

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

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
        yield estimate(cfg).text()
        return
    there = Topology.named(topology)
    yield estimate(cfg, there).text()
    yield from compiled(cfg, there)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run would take, by shapes alone."""

    parameters: int
    active_parameters: int
    """Those that one token passes through."""
    flops_per_token: float
    tokens: int
    steps: int
    mesh: dict[str, int]
    memory: dict[str, int]
    """Bytes per device, by what they hold."""
    memory_limit: float
    """Bytes that a device has."""
    weights: dict[str, tuple[tuple[int, ...], str]]
    """Shape and sharding of each array of the model."""

    def text(self) -> str:
        total = sum(self.memory.values())
        verdict = "fits" if total < self.memory_limit else "DOES NOT FIT"
        fits = f"of {self.memory_limit / 2**30:.1f} GiB: {verdict}"
        idle = self.active_parameters < self.parameters
        return "\n".join(
            [
                f"parameters        {self.parameters:,}",
                *([f"active per token  {self.active_parameters:,}"] if idle else []),
                f"FLOPs per token   {self.flops_per_token:.3g}",
                f"tokens            {self.tokens:,} in {self.steps:,} steps",
                f"FLOPs in total    {self.flops_per_token * self.tokens:.3g}",
                f"mesh              {self.mesh}",
                "memory per device",
                *(f"  {name:<24} {n / 2**20:>12,.1f} MiB" for name, n in self.memory.items()),
                f"  {'together (estimate)':<24} {total / 2**20:>12,.1f} MiB {fits}",
                "weights and their sharding",
                *(f"  {n:<24} {shape!s:<24} {spec}" for n, (shape, spec) in self.weights.items()),
            ]
        )


def estimate(cfg: TrainConfig, there: Topology | None = None) -> Estimate:
    """What a run would take of a topology's devices; without one, of those here."""
    shape = mesh_shape(cfg, len(there.devices) if there else jax.device_count())
    mesh = dict(zip(MESH_AXES, shape, strict=True))
    explicit = (jax.sharding.AxisType.Explicit,) * len(MESH_AXES)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh(shape, MESH_AXES, explicit)):
        state = jax.eval_shape(lambda: TrainState.init(cfg, make_optimizer(cfg)))

    def per_device(tree: Any) -> int:
        leaves = [x for x in jax.tree.leaves(tree) if x.sharding]  # None: an unsharded scalar
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    parameters = sum(x.size for x in jax.tree.leaves(state.model))
    return Estimate(
        parameters=parameters,
        active_parameters=parameters - cfg.model.idle_parameters(),
        flops_per_token=cfg.model.flops_per_token(cfg.sequence_length),
        tokens=cfg.steps * cfg.batch_size * cfg.sequence_length,
        steps=cfg.steps,
        mesh=mesh,
        memory={
            "weights": per_device(state.model),
            "gradients": per_device(state.model),
            "optimizer": per_device(state.optimizer),
            "weights' running average": per_device(state.ema),
            "activations (estimate)": activation_bytes(cfg, mesh),
        },
        memory_limit=there.memory if there else device_memory(),
        weights={
            jax.tree_util.keystr(path, simple=True, separator="."): (x.shape, str(x.sharding.spec))
            for path, x in jax.tree.leaves_with_path(state.model)
        },
    )


def activation_bytes(cfg: TrainConfig, mesh: dict[str, int]) -> int:
    """The model's own estimate, for a device's rows of one microbatch."""
    rows = cfg.batch_size / cfg.microbatches / math.prod(mesh[axis] for axis in BATCH)
    return int(cfg.model.activation_bytes(rows, cfg.sequence_length, mesh))


def device_memory() -> int:
    """Bytes one device has: its own memory, or its share of a CPU host's."""
    stats = jax.devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit", host // jax.local_device_count())
