"""Muon's orthogonal updates, of weights with and without experts.

Letters as in model.py. Beside train.py, whose length it spares.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from .model import FSDP


def orthogonal_updates(updates: Float[Array, "L *rest"], dtype: str) -> Float[Array, "L *rest"]:
    """The updates of a weight in all layers, each made orthogonal as one matrix: D by all else.

    Experts have a matrix each. Their entries have a root mean square of about 0.2, as AdamW's do,
    so that both can share a learning rate and a decay (Moonlight, arXiv:2502.16982, section 2.2).

    Layers are dealt out over the devices that have shards of them, one dimension of the weight
    after another (all-to-alls), and computed whole, so that none is computed twice, except by
    replicas. Experts stay where they are.
    """
    spec = jax.typeof(updates).sharding.spec
    batch = 2 if spec[1] == "expert" else 1  # leading dimensions: layers, and experts
    entries = [entry for entry in spec[batch:] if entry]  # a mesh axis each, or several
    dealt = []  # the first so many entries divide layers, the others what they divide in the weight
    for count in range(len(entries) + 1):
        names = [entry if isinstance(entry, tuple) else (entry,) for entry in entries[:count]]
        axes = sum(names, ())
        rest = [None if entry in entries[:count] else entry for entry in spec[batch:]]
        dealt.append(P(axes, *spec[1:batch], *rest))
    mesh = jax.sharding.get_abstract_mesh().shape
    layers, *shape = updates.shape
    padding = -layers % math.prod(mesh[axis] for axis in axes)
    x = jnp.pad(updates.astype(dtype), [(0, padding), *[(0, 0)] * len(shape)])
    for sharding in dealt[1:]:
        x = jax.reshard(x, sharding)
    sizes = shape[batch - 1 :]
    rows = sizes[0] if spec[batch] in ("data", FSDP) else math.prod(sizes[:-1])
    by_layer = P(axes, *spec[1:batch], None, None)
    matrices = jnp.reshape(x, (*x.shape[:batch], rows, -1), out_sharding=by_layer)
    matrices = 0.2 * max(matrices.shape[-2:]) ** 0.5 * orthogonalize(matrices)
    x = jnp.reshape(matrices, x.shape, out_sharding=dealt[-1])
    for sharding in reversed(dealt[:-1]):
        x = jax.reshard(x, sharding)
    return x[:layers].astype(updates.dtype)


def orthogonalize(x: Float[Array, "*batch M N"]) -> Float[Array, "*batch M N"]:
    """Matrices with the same singular vectors, and all singular values between about 0.7 and 1.2.

    Five Newton-Schulz iterations with the coefficients of Muon's author, which are tuned to lift
    small singular values fast (kellerjordan.github.io/posts/muon).
    """
    if x.shape[-2] > x.shape[-1]:
        return jnp.swapaxes(orthogonalize(jnp.swapaxes(x, -1, -2)), -1, -2)
    norms = jnp.linalg.norm(x.astype(jnp.float32), axis=(-1, -2), keepdims=True)
    x = (x / jnp.maximum(norms, 1e-7)).astype(x.dtype)
    for _ in range(5):
        gram = jnp.einsum("...mn,...kn->...mk", x, x)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x
