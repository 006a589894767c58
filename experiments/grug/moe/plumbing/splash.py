"""Attention by the splash kernel of TPUs, which must equal attention in chunks of queries.

A flash attention (arXiv:2205.14135): scores stay on the chip, forwards and backwards. Blocks where
no query sees a key are skipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LANES = 128  # of a TPU's vector register; blocks are multiples of it
BLOCK = 512  # positions per block, at most
INTERPRET = False  # runs the kernel's instructions one by one, on any platform: for tests


def splash(
    q: Float[Array, "B S N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    segment_ids: Int[Array, "B S"],
    sees: Callable[[Any, Any], Any],
) -> Float[Array, "B S N H"]:
    """softmax(q k / sqrt(H)) v over the keys of the same document that `sees` admits.

    Rows are filled up to a multiple of LANES, and cut off again.

    Args:
        sees: (positions of queries, positions of keys) -> whether each query sees each key. Every
            query must see a key of its own document.
    """
    # Here, since their import takes long and few runs need them.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads = q.shape[1], q.shape[2]
    size = -(-length // LANES) * LANES

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
        return jnp.pad(x, ((0, 0), (0, size - length), (0, 0), (0, 0))).swapaxes(1, 2)

    block = max(b for b in range(LANES, BLOCK + 1, LANES) if size % b == 0)
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
        q_seq_shards=1,
        interpret=INTERPRET,
    )

    def one_row(q: Array, k: Array, v: Array, segments: Array) -> Array:
        return attend(q, k, v, segment_ids=kernel.SegmentIds(segments, segments))

    q = q * q.shape[-1] ** -0.5
    # What fills a row is a document of its own.
    segments = jnp.pad(segment_ids, ((0, 0), (0, size - length)), constant_values=-1)
    y = jax.vmap(one_row)(by_head(q), by_head(k), by_head(v), segments)
    return y.swapaxes(1, 2)[:, :length].astype(v.dtype)
