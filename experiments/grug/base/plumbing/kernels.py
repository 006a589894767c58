"""Attention's kernels by their names in a config, and what each of them runs on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .cudnn import cudnn
from .splash import splash

KERNELS: dict[str, Callable[..., Any]] = {"cudnn": cudnn, "splash": splash}
"""(queries, keys, values, segment ids, sees, part, kept) -> outputs, each for one platform."""
PLATFORMS = {"cudnn": "gpu", "splash": "tpu"}
# What `auto` takes, by JAX's name of the platform. On a GPU the kernel is a choice, until one has
# measured it.
AUTO = {"tpu": "splash"}


def kernel_for(attention: str, platform: str) -> Any:
    """The way of attention that a config asks for, with what `auto` is on this platform.

    Raises:
        ValueError: it is a kernel for another platform.
    """
    chosen = AUTO.get(platform, "chunks") if attention == "auto" else attention
    needed = PLATFORMS.get(chosen, platform)
    if platform != needed:
        raise ValueError(
            f"model.attention={chosen} runs on a {needed}, not on a {platform}: use chunks, "
            "or --topology"
        )
    return chosen


def to_whole_rows(attend: Callable[..., Array], axis: str) -> Callable[..., Array]:
    """`attend` on a device that has a part of each row: the others' keys and values are gathered.

    The result is for `jax.shard_map`: (queries, keys, values, others) -> outputs. A mesh axis
    splits the positions of queries, keys and values; the others are passed on as they are.
    """

    def local(q: Array, k: Array, v: Array, *others: Array) -> Array:
        if jax.lax.axis_size(axis) == 1:
            return attend(q, k, v, *others)
        k, v = whole_rows(k, axis), whole_rows(v, axis)
        return attend(q, k, v, *others, part=jax.lax.axis_index(axis))

    return local


def whole_rows(part: Float[Array, "B Q K H"], axis: str) -> Float[Array, "B S K H"]:
    """The parts of all devices along the axis. Their gradients are summed in float32."""

    @jax.custom_vjp
    def gathered(part: Array) -> Array:
        return jax.lax.all_gather(part, axis, axis=1, tiled=True)

    def backward(_: None, gradient: Array) -> tuple[Array]:
        whole = gradient.astype(jnp.float32)
        own = jax.lax.psum_scatter(whole, axis, scatter_dimension=1, tiled=True)
        return (own.astype(gradient.dtype),)

    gathered.defvjp(lambda part: (gathered(part), None), backward)
    return gathered(part)
