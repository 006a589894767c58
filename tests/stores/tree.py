"""A small tree of arrays to save, the same in every process and on every mesh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("replica", "data", "context", "model")  # those of base
CONFIG = {"steps": 10}
SPECS = {
    "split": P("data", "model"),
    "rows": P(("replica", "data"), None),
    "zeros": P(None, "data"),
}


def make_mesh(replica: int, data: int, model: int) -> jax.sharding.Mesh:
    shape = (replica, data, 1, model)
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Explicit,) * 4, devices=devices)


def values(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "split": draw.normal(size=(16, 8)).astype(np.float32),
        "rows": draw.normal(size=(8, 6)).astype(jnp.bfloat16),
        "zeros": np.zeros((4, 8), np.float32),
        "step": np.array(seed, np.int32),
    }


def make_state(seed: int) -> dict[str, Any]:
    """On the current mesh."""
    mesh = jax.sharding.get_mesh()

    def place(name: str, x: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, SPECS.get(name, P()))
        return jax.make_array_from_callback(np.shape(x), sharding, lambda i: np.asarray(x)[i])

    return {name: place(name, x) for name, x in values(seed).items()}


def like() -> dict[str, Any]:
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for name, x in make_state(0).items()
    }


def assert_holds(state: dict[str, Any], seed: int) -> None:
    """Every shard of this process has the bits of `values(seed)`."""
    for name, expected in values(seed).items():
        for shard in state[name].addressable_shards:
            ours = np.asarray(shard.data)
            assert ours.tobytes() == np.asarray(expected)[shard.index].tobytes(), name
