"""Moves rows to their experts and back: places in buffers, and grouped matrix products.

Letters as in model.py: M rows of a buffer, E experts. Called by model.py, whose length it spares.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ROOM = 1.25  # places per row that a round sends to another device, if experts were chosen evenly
BLOCK = 64  # rows multiplied together by one expert; the fastest of 32 to 256 on two CPU cores


def room(rows: int, devices: int) -> int:
    """Places in one device's buffer for what another sends it in a round, of its `rows` rows."""
    return math.ceil(ROOM * rows / devices)


Exchange = Callable[[Any, Any, Any], tuple[Array, Array]]


def in_rounds(
    exchange: Exchange, rounds: Int[Array, ""], inputs: Any, route: Any
) -> tuple[Array, Array]:
    """Sum of exchange(i, inputs, route) over i < rounds; its first result has a gradient."""
    first = exchange(jnp.zeros((), jnp.int32), inputs, route)
    return later_rounds(exchange, rounds, first, inputs, route)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def later_rounds(
    exchange: Exchange, rounds: Int[Array, ""], first: Any, inputs: Any, route: Any
) -> tuple[Array, Array]:
    """`first`, that of round 0, plus the results of the rounds from 1 on, if there are any.

    JAX does not differentiate a loop whose length depends on values. The backward pass is another
    such loop; it computes each round anew, so that the memory of one round is enough for all.
    """

    def add(turn: Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, exchange(turn, inputs, route))

    return jax.lax.fori_loop(1, rounds, add, first)


def _later_rounds_forward(
    exchange: Exchange, rounds: Array, first: Any, inputs: Any, route: Any
) -> Any:
    return later_rounds(exchange, rounds, first, inputs, route), (rounds, inputs, route)


def _later_rounds_backward(exchange: Exchange, residuals: Any, d_total: Any) -> Any:
    rounds, inputs, route = residuals

    def add(turn: Array, d_inputs: Any) -> Any:
        _, pull, _ = jax.vjp(lambda x: exchange(turn, x, route), inputs, has_aux=True)
        return jax.tree.map(jnp.add, d_inputs, pull(d_total[0])[0])

    d_inputs = jax.lax.fori_loop(1, rounds, add, jax.tree.map(jnp.zeros_like, inputs))
    return None, d_total, d_inputs, None


later_rounds.defvjp(_later_rounds_forward, _later_rounds_backward)


def worst_case_blocks(rows: int, experts: int) -> int:
    """Number of blocks that hold `rows` rows, however these are spread over the experts."""
    return (rows + experts * (BLOCK - 1)) // BLOCK


def grouped_matmul(
    rows: Float[Array, "M inner"],
    weights: Float[Array, "local_E inner outer"],
    blocks: Int[Array, "local_E"],
    owner: Int[Array, "n_blocks"],
) -> Float[Array, "M outer"]:
    """Every block of rows times its owner's weights; rows of unused blocks are undefined.

    `blocks` counts each expert's blocks, `owner` names each block's expert. The implementation
    depends on the platform: on a CPU, XLA turns ragged_dot into a dense product of every row with
    every expert.
    """
    args = (rows, weights, blocks, owner)
    return jax.lax.platform_dependent(*args, cpu=block_matmul, default=ragged_matmul)


def block_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    """`grouped_matmul` as one batched product; gathers a copy of the weights per block."""
    blocked = rows.reshape(owner.shape[0], BLOCK, -1)
    own = weights[jnp.minimum(owner, weights.shape[0] - 1)]
    return jnp.einsum("nbi,nio->nbo", blocked, own).reshape(rows.shape[0], -1)


def ragged_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    """`grouped_matmul` as one ragged product."""
    return jax.lax.ragged_dot(rows, weights, blocks * BLOCK)


def rank_in_group(group: Int[Array, "M"], n: int) -> tuple[Int[Array, "M"], Int[Array, "n"]]:
    """The number of rows of the same group before each row, and the size of each of n groups."""
    member = group[:, None] == jnp.arange(n)[None]
    upto = jnp.cumsum(member.astype(jnp.int32), axis=0)
    return jnp.sum(jnp.where(member, upto - 1, 0), axis=1), upto[-1]


def slots(valid: Bool[Array, "M"], slot: Int[Array, "M"], size: int) -> Int[Array, "M"]:
    """`slot`, but beyond the buffer for rows that are not valid: `put` drops, `take` returns 0.

    No two rows share a slot. XLA is promised unique indices, so that gradients need no atomics.
    """
    return jnp.where(valid, slot, size + jnp.arange(slot.shape[0]))


def put(rows: Array, slot: Int[Array, "M"], size: int, *, empty: int = 0) -> Array:
    """A buffer of `size` rows with each given row in its slot."""
    buffer = jnp.full((size, *rows.shape[1:]), empty, rows.dtype)
    return buffer.at[slot].set(rows, mode="drop", unique_indices=True)


def take(buffer: Float[Array, "size D"], slot: Int[Array, "M"]) -> Float[Array, "M D"]:
    """The rows in these slots of a buffer; undoes `put`."""
    return buffer.at[slot].get(mode="fill", fill_value=0, unique_indices=True)
