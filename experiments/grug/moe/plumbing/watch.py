"""Norms of each layer's gradients, weights, updates and activations: `--watch-every`.

A program of its own computes them, so that the step is the same with and without. It repeats the
step for its gradients and updates, and a forward pass for its activations.
"""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .data import Batch

Norms = dict[str, Float[Array, ""]]
Step = Callable[[Any, Batch], tuple[Any, Any]]


class Watch:
    """Watches every so many steps, and gives nothing at the others.

    What it takes is no part of a step's time: `skip` is told of it, in seconds.
    """

    def __init__(self, every: int, norms: Callable[[Any, Batch], Norms], skip: Callable[..., None]):
        self.every, self.norms, self.skip = every, norms, skip

    def __call__(self, step: int, state: Any, batch: Batch) -> Norms:
        """The norms of a step that is about to be made, from the state before it."""
        if not self.every or step % self.every:
            return {}
        jax.block_until_ready(state)  # what is still to do for that is of the step before
        start = time.perf_counter()
        norms = jax.block_until_ready(self.norms(state, batch))
        self.skip(time.perf_counter() - start)
        return norms


def make_norms(
    cfg: Any,
    make_train_step: Callable[[Any, optax.GradientTransformation], Step],
    optimizer: optax.GradientTransformation,
    split_rows: Callable[[Batch, int], Batch],
) -> Callable[[Any, Batch], Norms]:
    """(state, batch) -> norms of one step, not yet made, by names such as `watch/update/layer_03`.

    - gradient: before clipping, root of the sum of squares over a layer's weights
    - weight: the same of the weights before the update
    - update: the same of what is added to them (also where --skip-above would not add it)
    - activation: root mean square of the residual stream after a layer, over real tokens

    What no layer holds is named by its field of the model: `watch/gradient/embed`.

    Args:
        cfg: the run.
        make_train_step, split_rows: of train.py.
        optimizer: the run's.
    """
    step = make_train_step(dataclasses.replace(cfg, skip_above=0.0), spied(optimizer))

    @jax.jit
    @jax.named_scope("watch")
    def norms(state: Any, batch: Batch) -> Norms:
        spy: Spy = step(state, batch)[0].optimizer
        found: Norms = {}
        trees = {"gradient": spy.gradients, "weight": state.model, "update": spy.updates}
        for kind, tree in trees.items():
            found |= {f"watch/{kind}/{name}": x for name, x in layer_norms(tree).items()}
        stream = activations(state.model, split_rows(batch, cfg.microbatches))
        period = len(state.model.blocks)  # of layers that a turn applies
        for turn in range(len(stream)):
            found[f"watch/activation/{layer_name(period * (turn + 1) - 1)}"] = stream[turn]
        return found

    return norms


class Spy(NamedTuple):
    """An optimizer's state, and what the update was made of."""

    state: optax.OptState
    gradients: Any
    updates: Any


def spied(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, but its new state is a Spy."""

    def update(gradients: Any, state: optax.OptState, params: Any = None) -> tuple[Any, Spy]:
        updates, state = optimizer.update(gradients, state, params)
        return updates, Spy(state, gradients, updates)

    return optax.GradientTransformation(optimizer.init, update)


def layer_name(layer: int) -> str:
    """`layer_03`: in the order of the layers where names are sorted."""
    return f"layer_{layer:02d}"


def layer_norms(model: Any) -> Norms:
    """Norms over a model or a tree of its form: by layer, and of each field without layers."""

    def squares(x: Array, axis: int) -> Array:
        return jnp.sum(jnp.square(x.astype(jnp.float32)), axis=range(axis, x.ndim))

    sums: dict[str, Any] = defaultdict(float)
    for path, x in jax.tree.leaves_with_path(model):
        if path[0].name != "blocks":
            sums[path[0].name] += squares(x, 0)
    for place, block in enumerate(model.blocks):
        by_turn: Any = sum(squares(x, 1) for x in jax.tree.leaves(block))
        for turn in range(len(by_turn)):
            sums[layer_name(turn * len(model.blocks) + place)] = by_turn[turn]
    return {name: jnp.sqrt(x) for name, x in sums.items()}


@dataclasses.dataclass
class Look:
    """What `watchable_scan` is asked for while a forward pass is traced."""

    weights: Float[Array, "B S"]
    found: list[Float[Array, "turns"]] = dataclasses.field(default_factory=list)
    """Of each loop, by turn: weighted sums over tokens of the mean square over D."""


_look: ContextVar[Look | None] = ContextVar("look", default=None)


def watchable_scan(body: Callable[..., Any], carry: Any, xs: Any, *, unroll: int) -> Any:
    """`jax.lax.scan` over layers, and nothing else unless activations are watched.

    The residual stream is the first array of the carry that has the shape (B, S, D).
    """
    look = _look.get()
    if look is None:
        return jax.lax.scan(body, carry, xs, unroll=unroll)

    def turn(carry: Any, x: Any) -> Any:
        carry, y = body(carry, x)
        shape = look.weights.shape
        stream = next(x for x in jax.tree.leaves(carry) if x.ndim == 3 and x.shape[:2] == shape)
        squares = jnp.mean(jnp.square(stream.astype(jnp.float32)), axis=-1)
        return carry, (y, jnp.sum(look.weights * squares))

    carry, (ys, squares) = jax.lax.scan(turn, carry, xs, unroll=unroll)
    look.found.append(squares)
    return carry, ys


def activations(model: Any, parts: Batch) -> Float[Array, "turns"]:
    """Root mean square of the residual stream after each turn of the loop over layers.

    Over real tokens. The rows of one part are computed at a time.
    """

    def squares(part: Batch) -> tuple[list[Array], Array]:
        look = Look(part.loss_weights)
        token = _look.set(look)
        try:
            model(part.tokens, part.segment_ids, part.positions)
        finally:
            _look.reset(token)
        return look.found, jnp.sum(part.loss_weights)

    sums, counts = jax.lax.map(squares, parts)
    by_turn = jnp.concatenate([jnp.sum(turns, axis=0) for turns in sums])
    return jnp.sqrt(by_turn / jnp.maximum(jnp.sum(counts), 1.0))
