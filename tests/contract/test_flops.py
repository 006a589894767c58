"""What ModelConfig says of a model's arithmetic, against what the model computes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.contract.harness import (
    Variant,
    abstract_batch,
    hidden_states,
    make_abstract_mesh,
    make_mesh,
    mesh_sizes,
    small_model,
)
from tests.contract.products import Uncountable, product_flops

# Room for what is no weight's product; a forgotten matrix of the small model is ten times as much.
TOLERANCE = 0.003
# So many per batch that padding of the experts' buffers, a block per expert, hardly counts.
TOKENS = 2**20


def odd_model(variant: Variant) -> Any:
    """The small model with sizes of which no two are the same, lest a formula hold by accident."""
    sizes = {"vocab_size": 160, "d_model": 48, "n_heads": 4, "n_kv_heads": 2, "head_dim": 20}
    # One query at a time meets its own keys and no more.
    return small_model(variant, **sizes, d_ff=112, query_chunk=1)


def counted(variant: Variant, model: Any, length: int) -> float:
    """FLOPs per token of training: three times the matrix products of a forward pass.

    The backward pass multiplies twice as often: for the gradient of each product's two factors.
    """
    resolved = dataclasses.replace(model, remat_layers=0, loss_chunk=length)
    cfg = dataclasses.replace(
        variant.presets()[0], model=resolved, batch_size=TOKENS // length, sequence_length=length
    )
    cfg = variant.launch.resolve(cfg)
    mesh = make_abstract_mesh(variant, mesh_sizes(variant, {}))
    with jax.sharding.use_abstract_mesh(mesh):
        initial = jax.eval_shape(
            lambda: variant.model.Transformer.init(cfg.model, key=jax.random.PRNGKey(0))
        )
        batch = abstract_batch(variant, cfg, mesh)
        try:
            flops = product_flops(lambda *x: variant.train.loss_sums(*x, 1e-4), initial, batch)
        except Uncountable as reason:
            pytest.fail(f"the matrix products cannot be counted: {reason}; exempt the variant")
    return 3 * flops / TOKENS


def assert_stated(what: str, stated: float, expected: float, remedy: str) -> None:
    """Fails with both numbers."""
    off = stated / expected - 1
    assert abs(off) <= TOLERANCE, (
        f"{what}: flops_per_token says {stated:,.0f}, the model's matrix products come to "
        f"{expected:,.0f} ({off:+.1%}): {remedy}, in ModelConfig of model.py"
    )


@pytest.mark.contract("flops")
def test_flops_per_token_counts_every_product_with_a_weight(variant):
    """At one position per row, where attention has one key and hardly counts."""
    model = odd_model(variant)
    remedy = "mend its lines of the layers' and the head's weights"
    assert_stated("small model", model.flops_per_token(1), counted(variant, model, 1), remedy)
    for name, preset in variant.launch.PRESETS.items():
        model = preset.model
        assert_stated(name, model.flops_per_token(1), counted(variant, model, 1), remedy)


@pytest.mark.contract("flops")
def test_flops_per_token_counts_the_products_with_keys(variant):
    """Those of the keys that `keys` states, at any length; at 16 positions, as computed."""
    model, length = odd_model(variant), 16
    remedy = "mend its line of the scores, or `keys`"
    one, computed = (counted(variant, model, n) for n in (1, length))
    assert_stated(f"{length} positions", model.flops_per_token(length), computed, remedy)

    def further_keys(length: int) -> float:
        return sum(map(model.keys, range(length))) / length - model.keys(0)

    longest = max(preset.sequence_length for preset in variant.presets())
    per_key = (computed - one) / further_keys(length)
    expected = one + per_key * further_keys(longest)
    assert_stated(f"{longest} positions", model.flops_per_token(longest), expected, remedy)


@pytest.mark.contract("keys")
def test_a_query_meets_as_many_keys_as_the_config_says(variant):
    """At any window: rows are as long as the longest preset's.

    A key counts if the gradient of the query's hidden state with respect to its embedding is not
    zero. The layers of all other places are silent: their matrices are zeros.
    """
    length = max(preset.sequence_length for preset in variant.presets())
    period = variant.model.PERIOD
    # No other size is this one: an array's axis of this length counts vocabulary entries.
    sizes = {"vocab_size": length + 61, "d_model": 32, "n_layers": period, "head_dim": 8}
    cfg = small_model(variant, **sizes, d_ff=32, query_chunk=length // 2)
    with jax.set_mesh(make_mesh(variant)):
        model = jax.jit(lambda: variant.model.Transformer.init(cfg, key=jax.random.PRNGKey(0)))()
        measure = meets(variant, cfg, length)
        for at in (length // 3, length - 1):
            places = [measure(alone(model, place), at) for place in range(period)]
            stated = cfg.keys(at)
            assert np.mean(places) == pytest.approx(stated, rel=1e-6), (
                f"the query at position {at} meets {places} keys, by place in PERIOD, "
                f"{np.mean(places):g} in the mean; ModelConfig.keys({at}) says {stated:g}: mend "
                "the mask, or `keys`, from which flops_per_token follows, in model.py"
            )


def alone(model: Any, place: int) -> Any:
    """The model with the matrices of the layers at all other places set to zero."""
    if len(model.blocks) == 1:
        return model

    def silence(path: Any, x: jax.Array) -> jax.Array:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        is_other = names[0] == "blocks" and names[1] != str(place)
        # Norms stay: a stream may pass through them.
        return jnp.zeros_like(x) if is_other and x.ndim > 2 else x

    return jax.tree_util.tree_map_with_path(silence, model)


def meets(variant: Variant, cfg: Any, length: int) -> Any:
    """`measure(model, at)`: number of positions that move the hidden state at a position."""
    by_row = NamedSharding(jax.sharding.get_mesh(), P(variant.model.BATCH, None))
    positions = jax.device_put(np.arange(length, dtype=np.int32)[None], by_row)
    ones = jax.device_put(np.ones((1, length), np.int32), by_row)
    direction = jax.random.normal(jax.random.PRNGKey(1), (cfg.d_model,))

    @jax.jit
    def gradient(model: Any, at: jax.Array) -> Any:
        def read(model: Any) -> jax.Array:
            hidden = hidden_states(model(positions, ones, positions))  # every token is another one
            return jnp.sum(hidden * (jnp.arange(length) == at)[None, :, None] * direction)

        return jax.grad(read)(model)

    def measure(model: Any, at: int) -> int:
        total = np.zeros(cfg.vocab_size)
        for x in map(np.asarray, jax.tree.leaves(gradient(model, at))):
            for axis in np.flatnonzero(np.array(x.shape) == cfg.vocab_size):
                total += np.abs(np.moveaxis(x, axis, 0)).reshape(cfg.vocab_size, -1).sum(axis=1)
        return int(np.count_nonzero(total[:length]))

    return measure
