"""Norms by layer, of models that are small enough to count by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.harness import under_test

variant = under_test()
watch, Batch = variant.watch, variant.data.Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tree:
    """A model of two fields."""

    embed: np.ndarray
    blocks: list[np.ndarray]


class Doubling:
    """Each layer doubles the stream, which begins as 1 at token 0 and as 3 at others."""

    def __init__(self, layers: int):
        self.layers = layers

    def __call__(self, tokens, segment_ids, positions):
        x = jnp.where(tokens == 0, 1.0, 3.0)[:, :, None] * jnp.ones(5)
        weights = jnp.full(self.layers, 2.0)

        def layer(carry, weight):
            return (carry[0] * weight, carry[1] + 1), carry[1]

        return watch.watchable_scan(layer, (x, 0), weights, unroll=1)[0][0]


def batches(parts: int):
    """A row whose third and fourth token are padding, in so many equal parts."""
    one = np.array([[0, 1, 1, 1]])
    arrays = (one, one, one, one, np.array([[1.0, 1.0, 0.0, 0.0]], np.float32))
    return Batch(*(jnp.stack([jnp.asarray(x)] * parts) for x in arrays))


@pytest.mark.parametrize("parts", [1, 3])
def test_activations_are_over_real_tokens_after_each_layer(parts):
    found = watch.activations(Doubling(3), batches(parts))
    start = np.sqrt((1.0**2 + 3.0**2) / 2)
    np.testing.assert_allclose(found, start * np.array([2.0, 4.0, 8.0]), rtol=1e-6)


def test_unwatched_it_is_the_scan():
    def layers(scan, tokens):
        return scan(lambda x, w: (x * w, None), tokens * 1.0, jnp.full(3, 2.0), unroll=3)[0]

    part = batches(1)
    programs = (partial(layers, scan) for scan in (jax.lax.scan, watch.watchable_scan))
    plain, ours = (str(jax.make_jaxpr(program)(part.tokens[0])) for program in programs)
    assert plain == ours
    watch.activations(Doubling(3), part)
    after = jax.make_jaxpr(partial(layers, watch.watchable_scan))(part.tokens[0])
    assert str(after) == plain  # nothing of a look is left behind


def test_norms_are_by_layer_and_by_field():
    """Of two places in the period and two turns: layers 0 and 2 are of the first place."""
    blocks = [np.array([[3.0, 4.0], [6.0, 8.0]]), np.array([[0.0, 1.0], [0.0, 2.0]])]
    tree = Tree(np.array([1.0, 1.0]), blocks)
    found = {name: float(x) for name, x in watch.layer_norms(tree).items()}
    assert found == pytest.approx(
        {"embed": 2**0.5, "layer_00": 5.0, "layer_01": 1.0, "layer_02": 10.0, "layer_03": 2.0}
    )


def test_only_due_steps_are_watched_and_their_time_is_left_out():
    asked, skipped = [], []
    look = watch.Watch(3, lambda state, batch: asked.append(state) or {"x": 1.0}, skipped.append)
    assert [look(step, step, None) for step in range(1, 7)] == [{}, {}, {"x": 1.0}] * 2
    assert asked == [3, 6] and len(skipped) == 2 and min(skipped) >= 0
    never = watch.Watch(0, None, None)
    assert all(never(step, None, None) == {} for step in range(5))
