"""Moves rows to their experts and back: between devices, and into groups for matrix products.

Letters as in model.py: M rows of a buffer, E experts. Called by model.py, whose length it spares.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ROOM = 1.25  # a device's places in another's buffer per round, over an even share of its rows
BLOCK = 64  # rows multiplied together by one expert; the fastest of 32 to 256 on two CPU cores


Rows = Float[Array, "M D"]
Load = Int[Array, "local_E"]
Weights = tuple[Float[Array, "local_E *_"], ...]
Compute = Callable[..., tuple[Rows, Load]]
"""(rows, each row's expert, *weights) -> each row's output, and the rows that each expert took. An
expert that is the number of experts takes no row, and its output is 0."""
Inputs = tuple[Rows, Weights]
Route = tuple[Int[Array, "M"], Int[Array, "M"], Int[Array, "M"]]
"""Each row's expert on its device, the device, and the number of rows before it to that device."""
Exchange = Callable[[Int[Array, ""], Inputs, Route], tuple[Rows, Load]]


def through_experts(
    compute: Compute,
    rows: Rows,
    expert: Int[Array, "M"],
    real: Bool[Array, "M"],
    weights: Weights,
) -> tuple[Rows, Load]:
    """Each row's output from its expert, on whichever device of the `expert` axis that is.

    Padding goes nowhere, and its output is 0. The other rows go in rounds: in one, each device has
    room for a little more than an even share of every other's rows. Most often one round takes all
    of them. However uneven the choice, rounds go on until it has, so no token is ever dropped.
    """
    devices, local_experts = jax.lax.axis_size("expert"), weights[0].shape[0]
    if devices == 1:
        return compute(rows, jnp.where(real, expert, local_experts), *weights)
    target = jnp.where(real, expert // local_experts, devices)
    rank, sizes = rank_in_group(target, devices)
    places = room(rows.shape[0], devices)
    rounds = (jax.lax.pmax(jnp.max(sizes), "expert") + places - 1) // places
    inputs, route = (rows, weights), (expert % local_experts, target, rank)
    one_round = partial(exchange, compute)
    first = one_round(jnp.zeros((), jnp.int32), inputs, route)
    return later_rounds(one_round, rounds, first, inputs, route)


def room(rows: int, devices: int) -> int:
    """Places in one device's buffer for what another sends it in a round, of its `rows` rows."""
    return math.ceil(ROOM * rows / devices)


def exchange(
    compute: Compute, turn: Int[Array, ""], inputs: Inputs, route: Route
) -> tuple[Rows, Load]:
    """Round number `turn`, from 0: the outputs of the rows whose turn it is, 0 for the others."""
    (rows, weights), (expert, target, rank) = inputs, route
    devices = jax.lax.axis_size("expert")
    places = room(rows.shape[0], devices)
    size = devices * places
    goes = (target < devices) & (rank // places == turn)
    slot = slots(goes, target * places + rank % places, size)
    # ragged_all_to_all would leave out the empty places. But a CPU cannot run it, and one round of
    # it for all rows needs buffers of the worst case.
    swap = partial(jax.lax.all_to_all, axis_name="expert", split_axis=0, concat_axis=0, tiled=True)
    received = swap(put(rows, slot, size))
    expert = swap(put(expert, slot, size, empty=weights[0].shape[0]))
    out, load = compute(received, expert, *weights)
    return take(swap(out), slot), load


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def later_rounds(
    one_round: Exchange,
    rounds: Int[Array, ""],
    first: tuple[Rows, Load],
    inputs: Inputs,
    route: Route,
) -> tuple[Rows, Load]:
    """The sum of all rounds' results, of which `first` is that of round 0.

    JAX does not differentiate a loop whose length depends on values. The backward pass is another
    such loop, which computes each round anew: the buffers of one round are enough for all.
    """

    def add(turn: Array, total: tuple[Rows, Load]) -> tuple[Rows, Load]:
        return jax.tree.map(jnp.add, total, one_round(turn, inputs, route))

    return jax.lax.fori_loop(1, rounds, add, first)


def _later_rounds_forward(
    one_round: Exchange, rounds: Array, first: tuple[Rows, Load], inputs: Inputs, route: Route
) -> tuple[tuple[Rows, Load], tuple[Array, Inputs, Route]]:
    return later_rounds(one_round, rounds, first, inputs, route), (rounds, inputs, route)


def _later_rounds_backward(
    one_round: Exchange, residuals: tuple[Array, Inputs, Route], d_total: Any
) -> tuple[None, Any, Inputs, None]:
    rounds, inputs, route = residuals

    def add(turn: Array, d_inputs: Inputs) -> Inputs:
        _, pull, _ = jax.vjp(lambda x: one_round(turn, x, route), inputs, has_aux=True)
        return jax.tree.map(jnp.add, d_inputs, pull(d_total[0])[0])

    zeros = jax.tree.map(jnp.zeros_like, inputs)
    return None, d_total, jax.lax.fori_loop(1, rounds, add, zeros), None


later_rounds.defvjp(_later_rounds_forward, _later_rounds_backward)


def in_groups(
    compute: Callable[[Rows, Callable[[Array, Array], Array]], Rows],
    rows: Rows,
    expert: Int[Array, "M"],
    experts: int,
) -> tuple[Rows, Load]:
    """`compute(rows, product)` of rows that are grouped by their expert, in the order they came in.

    `product(rows, weights)` multiplies each row with its expert's weights. Each group starts a new
    block. Also counts, per expert, the rows that have a place in a block. The output of a row whose
    expert is the number of experts is 0.
    """
    rank, sizes = rank_in_group(expert, experts)
    blocks = -(-sizes // BLOCK)
    ends = jnp.cumsum(blocks)
    starts = BLOCK * (ends - blocks)
    capacity = worst_case_blocks(rows.shape[0], experts)
    first = starts[jnp.minimum(expert, experts - 1)]
    slot = slots(expert < experts, first + rank, capacity * BLOCK)
    owner = jnp.searchsorted(ends, jnp.arange(capacity), side="right")  # experts: an unused block
    product = partial(grouped_matmul, blocks=blocks, owner=owner)
    out = take(compute(put(rows, slot, capacity * BLOCK), product), slot)
    placed = put(jnp.ones_like(expert), slot, capacity * BLOCK)
    per_block = jnp.sum(placed.reshape(capacity, BLOCK), axis=1)
    is_owner = owner[:, None] == jnp.arange(experts)[None]
    return out, jnp.sum(jnp.where(is_owner, per_block[:, None], 0), axis=0)


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
