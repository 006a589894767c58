"""Moves rows to their experts and back: between devices, and into groups for matrix products.

Also the experts themselves. Letters as in model.py, and M rows of a buffer, each one token on its
way to one expert. Called by model.py, whose length it spares.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

# The name of what a layer keeps for the backward pass beside the results of its matrix products.
KEPT = "kept"
ROOM = 1.25  # a device's places in another's buffer per round, over an even share of its rows
BLOCK = 64  # rows multiplied together by one expert; the fastest of 32 to 256 on two CPU cores
BLOCKS = 8  # of each expert, about, where it costs memory that each block has a copy of its weights


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


@jax.named_scope("exchange")
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


def expert_mlps(
    rows: Float[Array, "M D"],
    expert: Int[Array, "M"],
    w_up: Float[Array, "local_E D local_G"],
    w_down: Float[Array, "local_E local_G D"],
) -> tuple[Float[Array, "M D"], Int[Array, "local_E"]]:
    """Each row's output from its expert on this device; 0 if `expert` is the number of experts.

    Also counts the rows that each expert computed.
    """

    def mlps(rows: Array, product: Callable[[Array, Array], Array]) -> Array:
        up = checkpoint_name(product(checkpoint_name(rows, KEPT), w_up), KEPT)
        return product(jnp.square(jax.nn.relu(up)), w_down)

    return in_groups(mlps, rows, expert, w_up.shape[0])


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
    block, multiply = method(hardware(), rows, experts)
    rank, sizes = rank_in_group(expert, experts)
    blocks = -(-sizes // block)
    ends = jnp.cumsum(blocks)
    starts = block * (ends - blocks)
    capacity = worst_case_blocks(rows.shape[0], experts, block)
    first = starts[jnp.minimum(expert, experts - 1)]
    slot = slots(expert < experts, first + rank, capacity * block)
    owner = jnp.searchsorted(ends, jnp.arange(capacity), side="right")  # experts: an unused block
    product = jax.named_scope("products")(partial(multiply, blocks=blocks, owner=owner))
    out = take(compute(put(rows, slot, capacity * block), product), slot)
    placed = put(jnp.ones_like(expert), slot, capacity * block)
    per_block = jnp.sum(placed.reshape(capacity, block), axis=1)
    is_owner = owner[:, None] == jnp.arange(experts)[None]
    return out, jnp.sum(jnp.where(is_owner, per_block[:, None], 0), axis=0)


def worst_case_blocks(rows: int, experts: int, block: int) -> int:
    """Number of blocks that hold `rows` rows, however these are spread over the experts."""
    return (rows + experts * (block - 1)) // block


def hardware() -> str:
    """Kind of the devices a program is for: "cpu", "TPU v5 lite", "NVIDIA H100 80GB HBM3"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (device or jax.devices()[0]).device_kind


Product = Callable[..., Float[Array, "M outer"]]
"""(rows, weights, blocks, owner) -> every block of rows times its owner's weights. Rows of unused
blocks are undefined. `blocks` counts each expert's blocks, `owner` names each block's expert."""


class Method(NamedTuple):
    """How rows are multiplied with their experts' weights."""

    block: int
    """Rows that one expert multiplies together."""
    product: Product


def method(kind: str, rows: Rows, experts: int) -> Method:
    """The method for a kind of device. All compute little more than the model does.

    XLA has kernels for ragged_dot and its gradients on TPUs. Elsewhere it would multiply every row
    with every expert.
    """
    if kind.startswith("TPU"):
        return Method(BLOCK, ragged_matmul)
    if kind == "cpu":
        return Method(BLOCK, block_matmul)
    if re.search(r"\bG?H[12]00\b", kind) and rows.dtype != jnp.float32:
        from . import hopper  # here, since its import takes long and few runs need it

        return Method(hopper.BLOCK, hopper.grouped_matmul)
    return Method(BLOCK * max(1, rows.shape[0] // (BLOCKS * experts * BLOCK)), block_matmul)


def block_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    """A `Product` as one batched product; gathers a copy of the weights per block."""
    blocked = rows.reshape(owner.shape[0], -1, rows.shape[1])
    # Gathered as float32, so that the gradients of an expert's blocks are added in it.
    own = weights.astype(jnp.float32)[jnp.minimum(owner, weights.shape[0] - 1)]
    y = jnp.einsum("nbi,nio->nbo", blocked, own.astype(rows.dtype))
    return y.reshape(rows.shape[0], -1)


def ragged_matmul(rows: Array, weights: Array, blocks: Array, owner: Array) -> Array:
    """A `Product` as one ragged product."""
    return jax.lax.ragged_dot(rows, weights, blocks * (rows.shape[0] // owner.shape[0]))


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
