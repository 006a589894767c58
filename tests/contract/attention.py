"""Attention with all scores at hand, and what kernels are held against it with: rows and masks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HEADS, GROUPS, WIDTH = 4, 2, 8
Sees = Callable[[Any, Any], Any]


def causal(query: Any, key: Any) -> Any:
    return query >= key


def window(query: Any, key: Any) -> Any:
    return (query >= key) & (query - key < 20)


def one_of_the_future(query: Any, key: Any) -> Any:
    return (query >= key) | ((query == 7) & (key == 9))


def plain(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, sees: Sees) -> jax.Array:
    """Softmax over the seen keys, written out; query heads share keys and values in order."""
    at, shared = jnp.arange(q.shape[1]), q.shape[2] // k.shape[2]
    mask = (segments[:, :, None] == segments[:, None]) & sees(at[:, None], at[None])[None]
    k, v = (jnp.repeat(x, shared, axis=2) for x in (k, v))
    scores = jnp.einsum("bqnh,bknh->bnqk", q, k) / np.sqrt(q.shape[3]).astype(np.float32)
    scores = jnp.where(mask[:, None], scores, -jnp.inf)
    return jnp.einsum("bnqk,bknh->bqnh", jax.nn.softmax(scores), v)


def random_rows(length: int) -> tuple[list[jax.Array], np.ndarray]:
    """Queries, keys, values, a direction of the outputs, and segment ids of several documents."""
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    arrays = [
        jax.random.normal(key, (2, length, n, WIDTH))
        for key, n in zip(keys, (HEADS, GROUPS, GROUPS, HEADS), strict=True)
    ]
    begins = np.random.default_rng(0).random((2, length)) < 0.02
    return arrays, 1 + np.cumsum(begins, axis=1, dtype=np.int32)


def attended(attend: Callable[..., jax.Array], length: int, sees: Sees) -> list[np.ndarray]:
    """The outputs of random rows, and the gradients of their queries, keys and values."""
    (q, k, v, direction), segments = random_rows(length)
    y, pull_back = jax.vjp(lambda q, k, v: attend(q, k, v, jnp.asarray(segments), sees), q, k, v)
    return [np.asarray(x) for x in (y, *pull_back(direction))]
