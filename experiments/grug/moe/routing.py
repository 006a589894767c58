"""What routers did, as counts, and as the metrics that are logged.

Letters as in model.py. Beside model.py and train.py, whose length it spares.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Routing(NamedTuple):
    """Counts of what routers did with real tokens, not padding; they add up over microbatches."""

    load: Int[Array, "*L E"]  # tokens that each expert computed, counted where it computes
    assigned: Int[Array, "*L"]  # (token, expert) pairs to compute: top_k per token
    z: Float[Array, "*L"]  # sum over tokens of the router's squared log normaliser


def routing_metrics(routing: Routing, top_k: int) -> dict[str, Float[Array, ""]]:
    """How evenly and how completely a batch was routed, over all layers."""
    load, experts = routing.load.astype(jnp.float32), routing.load.shape[1]
    computed = jnp.maximum(jnp.sum(load, axis=1, keepdims=True), 1.0)
    assigned = jnp.maximum(jnp.sum(routing.assigned), 1).astype(jnp.float32)
    dropped = jnp.sum(routing.assigned) - jnp.sum(routing.load)  # integers: exact
    share = load / computed
    entropy = -jnp.sum(jax.scipy.special.xlogy(share, share), axis=1)
    return {
        # Mean over layers; 1 is an even load.
        "moe/load_entropy": jnp.mean(entropy) / math.log(experts) if experts > 1 else jnp.ones(()),
        # Load of the busiest expert of any layer; 1 is an even share.
        "moe/max_load": jnp.max(share) * experts,
        # Share of (token, expert) pairs that no expert computed; anything but 0 is a bug.
        "moe/drop_rate": dropped.astype(jnp.float32) / assigned,
        # Mean over layers and tokens.
        "moe/router_z": jnp.sum(routing.z) * top_k / assigned,
    }
