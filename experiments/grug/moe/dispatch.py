"""Rows on their way to their experts and back: places, buffers, grouped products.

Letters as in model.py: M rows of a buffer, E experts. Plumbing, kept apart for its length.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = 64  # rows of one expert that are multiplied together; the fastest of 32 to 256 on two cores


def worst_case_rows(rows: int, top_k: int, here: int) -> int:
    """Rows that one device may send to one that has `here` experts: a token's experts differ."""
    return rows // top_k * min(top_k, here)


def worst_case_blocks(rows: int, experts: int) -> int:
    """Blocks that hold `rows` rows however they fall to the experts."""
    return (rows + experts * (BLOCK - 1)) // BLOCK


def grouped_matmul(
    rows: Float[Array, "M inner"],
    weights: Float[Array, "local_E inner outer"],
    blocks: Int[Array, "local_E"],
    owner: Int[Array, "n_blocks"],
) -> Float[Array, "M outer"]:
    """Every block of rows times its owner's weights; rows of unused blocks are undefined.

    The platform that it is compiled for chooses: XLA makes ragged_dot on a CPU a dense product of
    every row with every expert.
    """
    args = (rows, weights, blocks, owner)
    return jax.lax.platform_dependent(*args, cpu=block_matmul, default=ragged_matmul)


def block_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    blocked = rows.reshape(owner.shape[0], BLOCK, -1)
    own = weights[jnp.minimum(owner, weights.shape[0] - 1)]
    return jnp.einsum("nbi,nio->nbo", blocked, own).reshape(rows.shape[0], -1)


def ragged_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    return jax.lax.ragged_dot(rows, weights, blocks * BLOCK)


def rank_in_group(group: Int[Array, "M"], n: int) -> tuple[Int[Array, "M"], Int[Array, "n"]]:
    """How many rows of its own group stand before each row, and the size of each of n groups."""
    member = group[:, None] == jnp.arange(n)[None]
    upto = jnp.cumsum(member.astype(jnp.int32), axis=0)
    return jnp.sum(jnp.where(member, upto - 1, 0), axis=1), upto[-1]


def slots(valid: Bool[Array, "M"], slot: Int[Array, "M"], size: int) -> Int[Array, "M"]:
    """A row without a place gets a slot beyond the buffer, which `put` drops and `take` reads as 0.

    A slot of its own: indices are promised to be unique, so that gradients need no atomics.
    """
    return jnp.where(valid, slot, size + jnp.arange(slot.shape[0]))


def put(rows: Array, slot: Int[Array, "M"], size: int, *, empty: int = 0) -> Array:
    """A buffer of `size` rows with each given row in its slot."""
    buffer = jnp.full((size, *rows.shape[1:]), empty, rows.dtype)
    return buffer.at[slot].set(rows, mode="drop", unique_indices=True)


def take(buffer: Float[Array, "size D"], slot: Int[Array, "M"]) -> Float[Array, "M D"]:
    """The inverse of `put`."""
    return buffer.at[slot].get(mode="fill", fill_value=0, unique_indices=True)
