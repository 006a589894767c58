"""Attention by the kernels of accelerators; model.py says which one runs.

Letters as in model.py. Each must equal `Attention.attend_chunks`, which runs anywhere.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Sees = Callable[[Any, Any], Any]
"""(positions of queries, positions of keys) -> whether each query sees each key, by position."""
LANES = 128  # of a TPU's vector register: what the kernel's blocks are a multiple of
BLOCK = 512  # positions per block, at most
INTERPRET = False  # run a kernel's instructions one by one, on any platform: for tests


def splash(
    q: Float[Array, "B S N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    segment_ids: Int[Array, "B S"],
    sees: Sees,
) -> Float[Array, "B S N H"]:
    """Splash attention, a flash attention for TPUs (arXiv:2205.14135) that skips unseen blocks.

    Scores stay on the chip, forwards and backwards. Rows are filled up to a multiple of LANES.

    Args:
        sees: the mask by position; a key of another document is never seen.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads = q.shape[1], q.shape[2]
    size = -(-length // LANES) * LANES

    class Mask(masks.Mask):
        """Read block by block: whole, it would take S x S bytes."""

        shape = (size, size)

        def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
            queries, keys = (np.arange(size)[part] for part in block)
            return np.asarray(sees(queries[:, None], keys[None]))

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self)

        def __hash__(self) -> int:
            return hash(self.shape)

    def by_head(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, size - length), (0, 0), (0, 0))).swapaxes(1, 2)

    block = max(b for b in range(LANES, BLOCK + 1, LANES) if size % b == 0)
    sizes = kernel.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), block),
        use_fused_bwd_kernel=True,
    )
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([Mask()] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=INTERPRET,
    )
    # What fills a row is a document of its own.
    segments = jnp.pad(segment_ids, ((0, 0), (0, size - length)), constant_values=-1)
    q = q * q.shape[-1] ** -0.5
    y = jax.vmap(lambda q, k, v, s: attend(q, k, v, segment_ids=kernel.SegmentIds(s, s)))(
        by_head(q), by_head(k), by_head(v), segments
    )
    return y.swapaxes(1, 2)[:, :length].astype(v.dtype)
