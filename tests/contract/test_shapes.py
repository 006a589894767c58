"""One training step of the largest preset on meshes of 8 devices, by shapes alone.

Nothing is allocated: the largest preset's weights, optimizer state and batch would not fit on the
machine that runs this, and no array is left behind.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.harness import (
    abstract_batch,
    hidden_states,
    leaves,
    make_abstract_mesh,
    make_init,
    make_step,
    mesh_fields,
    mesh_sizes,
)
from tests.contract.products import inner_jaxprs

DEVICES = 8
# What may stay whole on every device: norm scales, a router.
WHOLE = 0.05


def fitting_mesh(variant, cfg, axis: str) -> tuple[int, ...]:
    """As many of the devices as fit along `axis`, the others along `data`."""
    for size in (8, 4, 2):
        rest = {"data": DEVICES // size} if size < DEVICES else {}
        asked = {**rest, axis: size}
        shape, fields = mesh_sizes(variant, asked), mesh_fields(variant, asked)
        try:
            if variant.train.mesh_shape(dataclasses.replace(cfg, **fields), DEVICES) == shape:
                return shape
        except ValueError:
            continue
    raise AssertionError(f"the largest preset fits no mesh of {DEVICES} devices along {axis}")


@pytest.fixture(scope="module")
def traced(variant):
    """`traced(axis)`: the mesh, the state and batch before a step, the state and metrics after."""
    cfg = variant.launch.resolve(variant.presets()[-1])

    @functools.cache
    def trace(axis: str) -> tuple[Any, ...]:
        mesh = make_abstract_mesh(variant, fitting_mesh(variant, cfg, axis))
        with jax.sharding.use_abstract_mesh(mesh):
            state = jax.eval_shape(make_init(variant, cfg))
            batch = abstract_batch(variant, cfg, mesh)
            hidden = jax.eval_shape(
                lambda model, *inputs: hidden_states(model(*inputs)),
                *(state.model, batch.tokens, batch.segment_ids, batch.positions),
            )
            return mesh, state, hidden, *jax.eval_shape(make_step(variant, cfg), state, batch)

    return trace


def describe(tree: Any) -> dict[str, tuple]:
    """Shape, type and sharding of every leaf; an unsharded scalar has none."""
    return {
        name: (x.shape, np.dtype(x.dtype).name, tuple(x.sharding.spec) if x.sharding else ())
        for name, x in leaves(tree).items()
    }


def sizes(tree: Any) -> tuple[int, int]:
    """Bytes on one device, and of everything once."""
    arrays = jax.tree.leaves(tree)
    shards = [x.sharding.shard_shape(x.shape) if x.sharding else x.shape for x in arrays]
    one = sum(math.prod(n) * x.dtype.itemsize for n, x in zip(shards, arrays, strict=True))
    return one, sum(x.size * x.dtype.itemsize for x in arrays)


def assert_a_step_keeps_its_state(variant, traced, axis: str) -> None:
    held = jax.live_arrays()  # held, so that none of them goes and makes room for another
    before = len(held)
    mesh, state, hidden, after, metrics = traced(axis)
    now = len(jax.live_arrays())
    assert now == before, "tracing has allocated arrays"
    same_structure = jax.tree.structure(after) == jax.tree.structure(state)
    assert same_structure, "a step turns the state into another kind of tree"
    ours, theirs = describe(after), describe(state)
    assert {k: v for k, v in ours.items() if v != theirs[k]} == {}
    assert metrics
    for name, (shape, dtype, _) in describe(metrics).items():
        assert shape == () and dtype in ("float32", "int32"), f"{name}: {dtype}{shape}"
    rows = math.prod(mesh.shape[axis] for axis in variant.model.BATCH)
    own, parts = hidden.sharding.shard_shape(hidden.shape), mesh.shape["context"]
    assert (own[0] * rows, own[1] * parts) == hidden.shape[:2]


def assert_every_device_has_the_state(variant, traced, axis: str) -> None:
    assert_a_step_keeps_its_state(variant, traced, axis)
    mesh, state, *_ = traced(axis)
    assert mesh.shape[axis] == DEVICES
    one, together = sizes(state)
    assert one == together
    assert together > 2**32, "too small to prove that nothing is allocated"


@pytest.mark.contract("abstract-meshes")
def test_data_parallel(variant, traced):
    assert_every_device_has_the_state(variant, traced, "replica")


@pytest.mark.contract("abstract-meshes")
def test_fully_sharded_data_parallel(variant, traced):
    assert_a_step_keeps_its_state(variant, traced, "data")
    mesh, state, *_ = traced("data")
    assert mesh.shape["data"] == DEVICES
    one, together = sizes(state)
    assert one <= (1 + WHOLE) * together / DEVICES, "more than a share of it is on every device"


@pytest.mark.contract("abstract-meshes")
def test_tensor_parallel(variant, traced):
    assert_a_step_keeps_its_state(variant, traced, "model")
    _, state, *_ = traced("model")
    one, together = sizes(state)
    assert one <= (1 + WHOLE) * together / DEVICES, "more than a share of it is on every device"


@pytest.mark.contract("context")
def test_rows_split_over_a_context(variant, traced):
    """A device has an eighth of each row's hidden states, and the whole state."""
    assert_every_device_has_the_state(variant, traced, "context")


def sums_over(jaxpr: Any, axes: set[str]) -> Iterator[tuple[str, Any]]:
    """(operation, operand) of each sum over devices along some of the axes, in all of a program."""
    for operation in jaxpr.eqns:
        name, parameters = operation.primitive.name, operation.params
        named = parameters.get("axes") or parameters.get("axis_name") or ()
        along = {named} if isinstance(named, str) else set(named)
        for operand in operation.invars:
            unsummed = set(operand.aval.sharding.spec.unreduced) if name == "reshard" else set()
            is_sum = "psum" in name or "reduce_scatter" in name
            if axes & (unsummed | (along if is_sum else set())):
                yield name, operand.aval
        for inner in inner_jaxprs(parameters):
            yield from sums_over(inner, axes)


@pytest.mark.contract("abstract-meshes")
def test_gradients_are_summed_over_devices_in_float32(variant):
    """In bfloat16 a sum over many devices loses what is small beside what it already holds."""
    cfg = variant.launch.resolve(variant.presets()[-1], "v5e:4x4")
    assert cfg.model.compute_dtype == "bfloat16"
    token_axes = {*variant.model.BATCH, "context"}
    asked = {"replica": 2, "data": 2, "context": 2}
    mesh = make_abstract_mesh(variant, mesh_sizes(variant, asked))
    with jax.sharding.use_abstract_mesh(mesh):
        state = jax.eval_shape(make_init(variant, cfg))
        step = jax.make_jaxpr(make_step(variant, cfg))(state, abstract_batch(variant, cfg, mesh))
    sums = [(name, x) for name, x in sums_over(step.jaxpr, token_axes) if x.size > 1]
    assert len(sums) >= 8, "too few to be those of all weights"
    rounded = [f"{name} of {x}" for name, x in sums if x.dtype == jnp.bfloat16]
    assert not rounded, "cast to float32 before these sums over devices: " + "; ".join(rounded)


@pytest.mark.contract("abstract-meshes")
def test_every_other_axis(variant, traced):
    for axis in set(variant.model.MESH_AXES) - {"replica", "data", "context", "model"}:
        assert_a_step_keeps_its_state(variant, traced, axis)
        _, state, *_ = traced(axis)
        one, together = sizes(state)
        assert one < together / 2, f"{axis} splits too little"
