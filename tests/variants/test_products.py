"""The count of matrix products: as XLA has it where that is exact, and where it is not."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.contract.products import Uncountable, product_flops

M, K, N = 8, 32, 16
ones = partial(np.ones, dtype=np.float32)
X, W, SQUARE = ones((M, K)), ones((K, N)), ones((K, K))
PRODUCT = 2 * M * K * N
jax.config.update("jax_num_cpu_devices", 4)


@jax.custom_vjp
def custom(x: jax.Array) -> jax.Array:
    return x @ SQUARE


custom.defvjp(lambda x: (x @ SQUARE, None), lambda _, g: (g @ SQUARE @ SQUARE,))


def chained(x: jax.Array, length: int = 5) -> jax.Array:
    return jax.lax.scan(lambda x, _: (x @ SQUARE, None), x, length=length)[0]


CASES: dict[str, tuple[Callable[..., jax.Array], int]] = {
    "product": (lambda x: x @ W, PRODUCT),
    "transposed": (lambda x: jnp.einsum("mk,nk->mn", x, ones((N, K))), PRODUCT),
    "jit": (jax.jit(lambda x: jnp.einsum("mk,kn->nm", jnp.sin(x), W)), PRODUCT),
    "checkpoint": (jax.checkpoint(lambda x: x @ W), PRODUCT),
    "custom derivative": (custom, 2 * M * K * K),
    "gradient": (jax.grad(lambda x: jnp.sum(jnp.sin(x @ W))), 2 * PRODUCT),
    "scan": (chained, 5 * 2 * M * K * K),
    "scan in scan": (
        lambda x: jax.lax.scan(lambda x, _: (chained(x), None), x, length=3)[0],
        3 * 5 * 2 * M * K * K,
    ),
    "fori": (lambda x: jax.lax.fori_loop(0, 7, lambda _, x: x @ SQUARE, x), 7 * 2 * M * K * K),
    "while without": (
        lambda x: jnp.sum(x * x) + jax.lax.while_loop(lambda i: i < 3, lambda i: i + 1, 0),
        0,
    ),
    "cond": (lambda x: jax.lax.cond(x[0, 0] > 0, chained, lambda x: x, x), 5 * 2 * M * K * K),
    "platforms": (
        lambda x: jax.lax.platform_dependent(x, cpu=chained, default=chained),
        5 * 2 * M * K * K,
    ),
    "ragged": (
        lambda x: jax.lax.ragged_dot(x, jnp.asarray(ones((3, K, N))), jnp.array([2, 5, 1])),
        PRODUCT,
    ),
    "one row per matrix": (lambda x: jnp.einsum("mk,mkn->mn", x, ones((M, K, N))), 0),
    "vector": (lambda x: x @ x[0], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_products_are_counted(case: str) -> None:
    function, expected = CASES[case]
    assert product_flops(function, X) == expected


def test_a_product_of_every_device_counts() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, P("data", None))
        local = jax.shard_map(lambda x: x @ W, out_specs=P("data", None))
        assert product_flops(local, x) == PRODUCT


def test_large_products_are_what_xla_counts() -> None:
    """Elementwise operations, which XLA counts too, are few beside these."""

    def layer(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(jnp.square(jax.nn.relu(x @ w)) @ w.T))

    x, w = jnp.ones((64, 512)), jnp.ones((512, 1024))
    for function in (layer, jax.grad(layer, argnums=(0, 1))):
        cost = jax.jit(function).lower(x, w).compile().cost_analysis()
        assert cost is not None
        assert product_flops(function, x, w) == pytest.approx(cost["flops"], rel=0.01)


def test_what_cannot_be_counted_is_refused() -> None:
    def until_large(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x[0, 0] < 10, lambda x: x @ SQUARE, x)

    with pytest.raises(Uncountable, match="while loop"):
        product_flops(until_large, X)
