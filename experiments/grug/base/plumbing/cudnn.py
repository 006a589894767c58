"""Attention by cuDNN's kernels for NVIDIA GPUs, which must equal attention in chunks of queries.

A flash attention (arXiv:2205.14135): scores stay on the chip, forwards and backwards. The mask of a
row's documents does not: the kernels add it to the scores, as S x S numbers per row. All heads and
layers share it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

IMPLEMENTATION = "cudnn"  # of jax.nn.dot_product_attention; "xla", for tests, runs anywhere
WIDEST = 128  # head that kernels of every generation have


def cudnn(
    q: Float[Array, "B Q N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    segment_ids: Int[Array, "B S"],
    sees: Callable[[Any, Any], Any],
    part: int | Int[Array, ""] = 0,
    kept: str | None = None,
) -> Float[Array, "B Q N H"]:
    """softmax(q k / sqrt(H)) v over the keys of the same document that `sees` admits.

    Args:
        sees: (positions of queries, positions of keys) -> whether each query sees each key. Every
            query must see a key of its own document.
        part: which of the row's S / Q parts the queries are, from 0.
        kept: as of `splash`, but not used. A part of the kernel's results has no name, so that the
            backward pass runs the kernel again, and then has all of them.

    Raises:
        ValueError: cuDNN has no kernel for this type or shape; the message says what to change.
    """
    if IMPLEMENTATION == "cudnn":
        check(q)
    queries, length = q.shape[1], k.shape[1]
    numbers = jnp.arange(length)
    own = part * queries + numbers[:queries]
    segments = jax.lax.dynamic_slice_in_dim(segment_ids, part * queries, queries, axis=1)
    mask = segments[:, :, None] == segment_ids[:, None]
    mask &= sees(own[:, None], numbers[None])[None]
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        mask=mask[:, None],
        # If so, what is above the diagonal is never computed.
        is_causal=queries == length and is_causal(sees, length),
        implementation=IMPLEMENTATION,
    )


def check(q: Float[Array, "B S N H"]) -> None:
    """Raises ValueError unless cuDNN has a kernel for this type and shape."""
    length, width = q.shape[1], q.shape[3]
    if q.dtype != jnp.bfloat16:
        problem = f"computes in bfloat16, not in {q.dtype}: set model.compute_dtype"
    elif width > WIDEST or width % 8:
        problem = f"takes a head_dim of 8, 16, ... {WIDEST}, not {width}: change model.head_dim"
    elif length % 2:
        problem = f"takes rows of an even length, not of {length}: change sequence_length"
    else:
        return
    raise ValueError(f"model.attention=cudnn {problem}, or use chunks")


def is_causal(sees: Callable[[Any, Any], Any], length: int) -> bool:
    """Whether no query sees a later key; a part of a row at a time, since all take S x S bytes."""
    keys, part = np.arange(length)[None], 512
    for start in range(0, length, part):
        queries = np.arange(start, min(start + part, length))[:, None]
        if np.any(np.asarray(sees(queries, keys)) & (keys > queries)):
            return False
    return True
