"""The copy in Flax NNX computes what base computes, at the same cost: only the library differs."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import experiments.grug.base.launch as base_launch
import experiments.grug.base.train as base_train
import experiments.grug.nnx.launch as nnx_launch
import experiments.grug.nnx.train as nnx_train

SIZES = {"vocab_size": 320, "d_model": 64, "n_layers": 4, "head_dim": 32, "d_ff": 128}
# Two chunks of queries and of the loss, and layers of both kinds.
MEMORY = {"query_chunk": 32, "loss_chunk": 64, "remat_layers": 2, "compute_dtype": "float32"}
RUN = {"batch_size": 4, "sequence_length": 64, "microbatches": 2, "warmup_steps": 0}
ROWS, LENGTH = RUN["batch_size"], RUN["sequence_length"]
Z_LOSS = 0.01


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    mesh = base_train.make_mesh(base_launch.PRESETS["tiny"], jax.devices()[:1])
    with jax.set_mesh(mesh):
        yield


def config(launch: Any) -> Any:
    """The same small run in a variant's own classes."""
    preset = launch.PRESETS["tiny"]
    model = dataclasses.replace(preset.model, **SIZES, **MEMORY)
    return dataclasses.replace(preset, **RUN, model=model, ema_decay=0.9)


def named(tree: Any) -> dict[str, Any]:
    """Every array by its path, in base's spelling: NNX adds the name of a Param's value."""
    leaves = jax.tree.leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    values = {n.removesuffix("/value"): x for n, (_, x) in zip(names, leaves, strict=True)}
    assert len(values) == len(leaves)
    return values


def values(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in named(tree).items()}


def filled(tree: Any, numbers: dict[str, np.ndarray]) -> Any:
    """The tree with these numbers in place of its own."""
    placed = [jax.device_put(numbers[n], x.sharding) for n, x in named(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), placed)


def initial(launch: Any, train: Any) -> Any:
    """The training state of step 0."""
    cfg = config(launch)
    return jax.jit(lambda: train.TrainState.init(cfg, train.make_optimizer(cfg)))()


@pytest.fixture(scope="module")
def states(one_device: None) -> tuple[Any, Any]:
    """The states of step 0: base's, and that in NNX."""
    return initial(base_launch, base_train), initial(nnx_launch, nnx_train)


@pytest.fixture(scope="module")
def moved(states: tuple[Any, Any]) -> tuple[Any, Any]:
    """Both with base's weights plus noise: at step 0, a scale that is not used would go unseen."""
    draw = np.random.default_rng(0)
    weights = {
        name: (x + 0.1 * draw.normal(size=x.shape)).astype(np.float32)
        for name, x in values(states[0].model).items()
    }
    base, ours = (dataclasses.replace(s, model=filled(s.model, weights)) for s in states)
    return base, ours


def batch_of(train: Any) -> Any:
    """Two documents in each row, and targets that do not count at their ends."""
    draw = np.random.default_rng(1)
    tokens, targets = draw.integers(SIZES["vocab_size"], size=(2, ROWS, LENGTH))
    place = np.arange(LENGTH)[None] - np.array([[20], [31], [32], [50]])
    weights = ((place != -1) & (place != place[:, -1:])).astype(np.float32)
    positions = np.where(place < 0, np.arange(LENGTH)[None], place)
    arrays = {
        **{"tokens": tokens, "targets": targets, "segment_ids": 1 + (place >= 0)},
        "positions": positions,
    }
    by_row = P(train.BATCH, None)
    put = {name: jax.device_put(x.astype(np.int32), by_row) for name, x in arrays.items()}
    return train.Batch(**put, loss_weights=jax.device_put(weights, by_row))


def test_the_initial_weights_are_bases_bit_for_bit(states: tuple[Any, Any]) -> None:
    base, ours = (values(state.model) for state in states)
    assert ours.keys() == base.keys()
    differing = [name for name in base if ours[name].tobytes() != base[name].tobytes()]
    assert not differing and {x.dtype.name for x in ours.values()} == {"float32"}


def test_the_weights_are_sharded_as_bases(states: tuple[Any, Any]) -> None:
    base, ours = (
        {name: x.sharding.spec for name, x in named(state.model).items()} for state in states
    )
    assert ours == base and base["head"] == P("data", "model")


def loss_and_gradients(train: Any, model: Any) -> tuple[float, dict[str, np.ndarray]]:
    batch = batch_of(train)

    def mean(model: Any) -> jax.Array:
        return train.loss_sums(model, batch, Z_LOSS)[0] / jnp.sum(batch.loss_weights)

    loss, gradients = jax.jit(jax.value_and_grad(mean))(model)
    return float(loss), values(gradients)


def test_loss_and_gradients_are_bases(moved: tuple[Any, Any]) -> None:
    base_loss, base = loss_and_gradients(base_train, moved[0].model)
    loss, ours = loss_and_gradients(nnx_train, moved[1].model)
    np.testing.assert_allclose(loss, base_loss, rtol=1e-6)
    assert ours.keys() == base.keys()
    for name, expected in base.items():
        largest = np.abs(expected).max()
        assert largest > 0, name
        np.testing.assert_allclose(ours[name], expected, atol=1e-4 * largest, err_msg=name)


@pytest.fixture(scope="module")
def compiled(moved: tuple[Any, Any]) -> list[Any]:
    """Both variants' steps."""

    def compile_step(launch: Any, train: Any, state: Any) -> Any:
        cfg = config(launch)
        step: Any = train.make_train_step(cfg, train.make_optimizer(cfg))
        return step.lower(state, batch_of(train)).compile()

    return [
        compile_step(base_launch, base_train, moved[0]),
        compile_step(nnx_launch, nnx_train, moved[1]),
    ]


def test_the_compiled_step_costs_what_bases_costs(compiled: list[Any]) -> None:
    base, ours = (step.memory_analysis() for step in compiled)
    for kind in ("argument", "output", "alias", "temp"):
        size = f"{kind}_size_in_bytes"
        assert getattr(ours, size) == pytest.approx(getattr(base, size), rel=0.01), size
    assert base.temp_size_in_bytes > 0 and base.alias_size_in_bytes > 0  # donated
    base_flops, flops = (step.cost_analysis()["flops"] for step in compiled)
    assert flops == pytest.approx(base_flops, rel=0.01) and base_flops > 1e6


def test_a_step_makes_the_state_that_bases_makes(
    compiled: list[Any], moved: tuple[Any, Any]
) -> None:
    """Its groups of weights too: a scale that decayed would differ."""
    base, ours = (
        step(jax.tree.map(jnp.copy, state), batch_of(train))  # a copy: the step donates it
        for step, state, train in zip(compiled, moved, (base_train, nnx_train), strict=True)
    )
    for part in (0, 1):  # the state, the metrics
        expected, given = values(base[part]), values(ours[part])
        assert given.keys() == expected.keys()
        for name, x in expected.items():
            np.testing.assert_allclose(given[name], x, rtol=1e-5, atol=1e-5, err_msg=name)
