"""The splash kernel, interpreted, against attention with all scores at hand.

Whether it compiles is tried by tests/slow/topology.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract.harness import under_test

module = under_test().splash
ROWS, HEADS, GROUPS, WIDTH = 2, 4, 2, 8
Sees = Callable[[Any, Any], Any]


def causal(query: Any, key: Any) -> Any:
    return query >= key


def window(query: Any, key: Any) -> Any:
    return (query >= key) & (query - key < 20)


def one_of_the_future(query: Any, key: Any) -> Any:
    return (query >= key) | ((query == 7) & (key == 9))


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(module, "INTERPRET", True)


def plain(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, sees: Sees) -> jax.Array:
    at = jnp.arange(q.shape[1])
    mask = (segments[:, :, None] == segments[:, None]) & sees(at[:, None], at[None])[None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])


def attended(attend: Callable[..., jax.Array], length: int, sees: Sees) -> list[np.ndarray]:
    """Rows of several documents, and the gradients of their queries, keys and values."""
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    q, k, v, direction = (
        jax.random.normal(key, (ROWS, length, n, WIDTH))
        for key, n in zip(keys, (HEADS, GROUPS, GROUPS, HEADS), strict=True)
    )
    begins = np.random.default_rng(0).random((ROWS, length)) < 0.02
    segments = jnp.asarray(1 + np.cumsum(begins, axis=1, dtype=np.int32))
    y, pull_back = jax.vjp(lambda q, k, v: attend(q, k, v, segments, sees), q, k, v)
    return [np.asarray(x) for x in (y, *pull_back(direction))]


# 200 positions are filled up to 256, and 640 make five blocks.
@pytest.mark.parametrize("length", [128, 200, 640])
@pytest.mark.parametrize("sees", [causal, window, one_of_the_future])
def test_splash_is_plain_attention(length, sees):
    ours, expected = (attended(f, length, sees) for f in (module.splash, plain))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("sees", [window, one_of_the_future])
def test_the_comparison_sees_another_mask(sees):
    ours, expected = attended(module.splash, 200, sees), attended(plain, 200, causal)
    assert np.abs(ours[0] - expected[0]).max() > 1e-3


def test_a_type_stays_what_it_is():
    shapes = [(ROWS, 64, n, WIDTH) for n in (HEADS, GROUPS, GROUPS)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    segments = jax.ShapeDtypeStruct((ROWS, 64), jnp.int32)
    attend = jax.eval_shape(lambda *x: module.splash(*x, causal), *arrays, segments)
    assert (attend.shape, attend.dtype) == (shapes[0], jnp.bfloat16)


def test_the_program_tells_its_flops():
    """Of the blocks that are not skipped: with 1024 positions in blocks of 512, three of four."""
    shapes = [(ROWS, 1024, n, WIDTH) for n in (HEADS, GROUPS, GROUPS)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    segments = jax.ShapeDtypeStruct((ROWS, 1024), jnp.int32)
    text = jax.jit(lambda *x: module.splash(*x, causal)).lower(*arrays, segments).as_text()
    product = 2 * ROWS * HEADS * 3 * 512 * 512 * WIDTH
    assert f'flops_fwd = "{2 * product}"' in text and f'flops_dkv = "{5 * product}"' in text
