"""Bytes that a training step moves between devices, counted from what XLA compiled.

By the usual ring algorithms, for an array of n bytes over g devices: an all-reduce moves
2 n (g - 1) / g through each device, the other collectives n (g - 1) / g.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.grug.base import train
from experiments.grug.base.model import BATCH, ModelConfig
from experiments.grug.base.planning.hlo import count
from experiments.grug.base.plumbing.data import Batch
from experiments.grug.base.train import TrainConfig
from tests.benchmarks.ours import adamw_alone


def small_config(**sizes: Any) -> TrainConfig:
    """Large enough that weights and activations outweigh norms and scalars."""
    model = ModelConfig(
        d_model=256, n_heads=8, n_kv_heads=8, head_dim=32, d_ff=1024, compute_dtype="float32"
    )
    model = dataclasses.replace(model, **sizes)
    return TrainConfig(model=model, batch_size=8, sequence_length=256)


def compiled_step(cfg: TrainConfig, shape: tuple[int, int, int]) -> Any:
    """The template's step compiled for a mesh of (replica, data, model), from shapes alone."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = train.make_mesh(dataclasses.replace(cfg, mesh=shape), devices)
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(BATCH, None))
    size = (cfg.batch_size, cfg.sequence_length)
    rows: list[Any] = [
        jax.ShapeDtypeStruct(size, t, sharding=by_row) for t in (jnp.int32, jnp.float32)
    ]
    with jax.set_mesh(mesh):
        optimizer = adamw_alone(train, cfg)
        state = jax.eval_shape(jax.jit(lambda: train.TrainState.init(cfg, optimizer)))
        step: Any = train.make_train_step(cfg, optimizer)
        return step.lower(state, Batch(*rows[:1] * 4, rows[1])).compile()


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes a device receives in a step: counted, and the least possible."""

    counted: dict[str, float]
    least: float

    @property
    def ratio(self) -> float:
        return sum(self.counted.values()) / self.least


def least_fsdp(cfg: TrainConfig, devices: int) -> float:
    """Each weight matrix gathered once and its gradient scattered once.

    A layer that is recomputed has kept nothing and gathers its own again for the backward pass.
    """
    m = cfg.model
    attention = 2 * m.d_model * (m.n_heads + m.n_kv_heads) * m.head_dim
    layer = attention + 2 * m.d_model * m.d_ff
    weights = m.n_layers * layer + 2 * m.vocab_size * m.d_model
    moved = 2 * weights + m.remat_layers * layer
    return moved * np.dtype(m.compute_dtype).itemsize * (devices - 1) / devices


def least_tensor(cfg: TrainConfig, devices: int) -> float:
    """Activations summed twice a layer in each direction, and once for the head's gradient.

    Once more in a layer that is recomputed, between attention and MLP; for the embedding a sum, or
    its table where that is less.
    """
    m = cfg.model
    hidden = 2 * cfg.batch_size * cfg.sequence_length * m.d_model
    moved = (4 * m.n_layers + m.remat_layers + 1) * hidden
    moved += min(hidden, m.vocab_size * m.d_model)
    return moved * np.dtype(m.compute_dtype).itemsize * (devices - 1) / devices


def traffic(cfg: TrainConfig, kind: str, devices: int) -> Traffic:
    """Of `fsdp` or `tensor` parallelism over so many devices."""
    shape = (1, devices, 1) if kind == "fsdp" else (1, 1, devices)
    found = count(compiled_step(cfg, shape).as_text()).collectives
    around = (devices - 1) / devices
    counted = {k: v * around * (2 if k == "all-reduce" else 1) for k, v in found.items()}
    least = least_fsdp if kind == "fsdp" else least_tensor
    return Traffic(counted, least(cfg, devices))
