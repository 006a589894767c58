"""The loss, its gradient, and the logits that samples are drawn from belong together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.harness import Variant, make_mesh, small_model

pytestmark = pytest.mark.contract("loss")

ROWS, LENGTH = 4, 32
# Hidden states are this many times as large as a trained model's: logits reach 60, where what
# bends large ones (a soft-cap) bends these.
SCALE = 20.0


@pytest.fixture(scope="module", autouse=True)
def one_device(variant: Variant):
    with jax.set_mesh(make_mesh(variant)):
        yield


@pytest.fixture(scope="module")
def model(variant: Variant, one_device: None) -> Any:
    cfg = small_model(variant, loss_chunk=8)
    return jax.jit(lambda: variant.model.Transformer.init(cfg, key=jax.random.PRNGKey(0)))()


@pytest.fixture(scope="module")
def inputs(variant: Variant, model: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states, targets and weights; a quarter of the weights are 0."""
    keys, shape = jax.random.split(jax.random.PRNGKey(1), 3), (ROWS, LENGTH)
    hidden = SCALE * jax.random.normal(keys[0], (*shape, model.cfg.d_model))
    targets = jax.random.randint(keys[1], shape, 0, model.cfg.vocab_size)
    weights = jax.random.bernoulli(keys[2], 0.75, shape).astype(jnp.float32)
    by_row = P(variant.model.BATCH)
    hidden, targets, weights = (jax.device_put(x, by_row) for x in (hidden, targets, weights))
    return hidden, targets, weights


def test_the_cross_entropy_is_that_of_the_logits(model, inputs):
    """Over chunks and in one piece: a change of the logits must reach the loss and samples."""
    hidden, targets, weights = inputs
    _, ours = jax.jit(lambda model, *x: model.loss_sums(*x, 0.0))(model, *inputs)
    logits = np.asarray(jax.jit(lambda model, x: model.logits(x))(model, hidden), np.float64)
    largest = logits.max(axis=-1, keepdims=True)
    log_z = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[..., 0]
    own = np.take_along_axis(logits, np.asarray(targets)[..., None], axis=-1)[..., 0]
    expected = float(np.sum(np.asarray(weights) * (log_z - own)))
    assert float(ours) == pytest.approx(expected, rel=1e-4), (
        f"loss_sums gives a cross-entropy of {float(ours):.6g} nats, Transformer.logits one of "
        f"{expected:.6g}: make a change of the logits (a soft-cap, a scale) in both, in model.py"
    )


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_the_gradient_of_the_loss_is_its_own(model, inputs, z_loss):
    """By a step along it, up and down; most gradients of the loss are written by hand."""
    hidden, *labels = inputs
    differentiable = {"hidden": hidden, "model": model}

    @jax.jit
    def loss(point: dict[str, Any]) -> jax.Array:
        return point["model"].loss_sums(point["hidden"], *labels, z_loss)[0]

    gradient = jax.jit(jax.grad(loss))(differentiable)
    for name in differentiable:
        part = {k: g if k == name else jax.tree.map(jnp.zeros_like, g) for k, g in gradient.items()}
        norm = float(jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(part))))
        step = 1e-2 * float(loss(differentiable)) / norm**2  # moves the loss by a hundredth

        def moved(step: float, part: dict[str, Any] = part) -> float:
            return float(loss(jax.tree.map(lambda x, d: x + step * d, differentiable, part)))

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert slope == pytest.approx(norm**2, rel=0.02), (
            f"the loss changes {slope / norm**2:.3f} times as fast along its gradient with "
            f"respect to {name} as the gradient says: the backward pass lacks what the forward "
            "pass does to the logits, in model.py"
        )


def test_targets_of_weight_0_do_not_count(variant, model, inputs):
    hidden, targets, weights = inputs
    other = jnp.where(weights > 0, targets, (targets + 1) % model.cfg.vocab_size)
    run = jax.jit(jax.value_and_grad(lambda h, t: model.loss_sums(h, t, weights, 0.01)[0]))
    for ours, theirs in zip(run(hidden, targets), run(hidden, other), strict=True):
        np.testing.assert_array_equal(ours, theirs, "the loss depends on targets of weight 0")
