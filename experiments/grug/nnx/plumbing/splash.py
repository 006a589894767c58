"""Attention by the splash kernel of TPUs, which must equal attention in chunks of queries.

A flash attention (arXiv:2205.14135): scores stay on the chip, forwards and backwards. Blocks where
no query sees a key are skipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float, Int

LANES = 128  # of a TPU's vector register; blocks are multiples of it
BLOCK = 512  # positions per block, at most
INTERPRET = False  # runs the kernel's instructions one by one, on any platform: for tests


def splash(
    q: Float[Array, "B Q N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    segment_ids: Int[Array, "B S"],
    sees: Callable[[Any, Any], Any],
    part: int | Int[Array, ""] = 0,
    kept: str | None = None,
) -> Float[Array, "B Q N H"]:
    """softmax(q k / sqrt(H)) v over the keys of the same document that `sees` admits.

    Whole rows are filled up to a multiple of LANES, and cut off again.

    Args:
        sees: (positions of queries, positions of keys) -> whether each query sees each key. Every
            query must see a key of its own document.
        part: which of the row's S / Q parts the queries are, from 0.
        kept: the name by which a policy of `jax.checkpoint` keeps the kernel's results, so that the
            backward pass need not run it again.

    Raises:
        ValueError: a part of a row is no multiple of LANES.
    """
    # Here, since their import takes long and few runs need them.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads, parts = q.shape[1], q.shape[2], k.shape[1] // q.shape[1]
    if parts > 1 and length % LANES:
        raise ValueError(
            f"model.attention=splash takes parts of {LANES}, {2 * LANES}, ... positions, not of "
            f"{length}: change sequence_length or context, or use chunks"
        )
    own = -(-length // LANES) * LANES
    size = parts * own

    class Mask(masks.Mask):
        """Read block by block: the whole mask would take S x S bytes."""

        shape = (size, size)

        def __getitem__(self, idx: tuple[slice, slice]) -> np.ndarray:
            queries, keys = (np.arange(size)[part] for part in idx)
            return np.asarray(sees(queries[:, None], keys[None]))

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Mask)

        def __hash__(self) -> int:
            return hash(self.shape)

    def by_head(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, own - length), (0, 0), (0, 0))).swapaxes(1, 2)

    block = max(b for b in range(LANES, BLOCK + 1, LANES) if own % b == 0)
    spans = [slice(start, start + block) for start in range(0, size, block)]
    used = np.array([[Mask()[queries, keys].any() for keys in spans] for queries in spans])
    blocks = int(used.reshape(parts, -1).sum(axis=1).max())  # of the part that has most
    product = 2 * q.shape[0] * heads * blocks * block**2 * q.shape[3]
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([Mask()] * heads),
        block_sizes=kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=kept,
        interpret=INTERPRET,
    )
    if parts > 1:
        attend = one_part(attend, part, parts)

    def one_row(q: Array, k: Array, v: Array, segments: Array) -> Array:
        queries = jax.lax.dynamic_slice_in_dim(segments, part * own, own)
        return attend(q, k, v, segment_ids=kernel.SegmentIds(queries, segments))

    q = q * q.shape[-1] ** -0.5
    # What fills a row is a document of its own.
    filled = ((0, 0), (0, size - segment_ids.shape[1]))
    segments = jnp.pad(segment_ids, filled, constant_values=-1)
    # The compiler cannot look into a kernel: the plan reads here what both compute, of each block
    # that is not skipped. Forwards there are two products, backwards five.
    with set_xla_metadata(flops_fwd=2 * product, flops_dkv=5 * product):
        y = jax.vmap(one_row)(by_head(q), by_head(k), by_head(v), segments)
    return y.swapaxes(1, 2)[:, :length].astype(v.dtype)


def one_part(kernel: Any, part: int | Int[Array, ""], parts: int) -> Any:
    """A kernel whose description of the mask is cut to one part of the queries."""

    def cut(infos: Any) -> Any:
        def slice_of(info: Array | None) -> Array | None:
            if info is None:
                return None
            size = info.shape[1] // parts
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(info), part * size, size, axis=1)

        fields = ("data_next", "mask_next", "block_mask")
        return infos._replace(**{name: slice_of(getattr(infos, name)) for name in fields})

    (*infos,), kwargs = kernel.tree_flatten()
    return kernel.tree_unflatten(kwargs, [info and cut(info) for info in infos])
