"""The grug language model: a decoder-only transformer in one file, written to be copied and edited.

Read top to bottom: config, norm, rotary positions, attention, MLP, block, transformer, loss.

Dimension letters; an einsum uses the same ones in lower case:
    B batch rows      S sequence positions   D model width   N query heads   K key/value heads
    H head width      F MLP width            V vocabulary    L layers   R = H / 2 rotary pairs

Mesh axes; the shape of the mesh alone chooses the parallelism (every function here runs under
`jax.set_mesh`):
    replica  whole copies of the weights: plain data parallelism
    data     batch rows, and a shard of every weight: FSDP
    context  positions of each row; attention gathers the row's keys and values
    model    heads, MLP columns and vocabulary entries: tensor parallelism

Words of JAX's explicit sharding (docs.jax.dev/en/latest/notebooks/explicit-sharding.html):
    P("data", None)     part of an array's type: the mesh axis that splits each dimension.
                        Operations pass it on; `jax.reshard` changes it, communicating if it must.
    reduced={"model"}   copies whose gradient stays unsummed: along these axes each device keeps the
                        gradient of its own rows, to be summed once, with whatever follows.
    jax.shard_map(f)    runs f on each device with its own shards; communication is explicit there
                        (psum, all_gather, ...).
    varying             inside shard_map: differs from device to device along an axis.
    jax.lax.pcast       declares copies to be varying or reduced, for the types; moves nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .plumbing.kernels import KERNELS, to_whole_rows
from .plumbing.ranges import Count, CountOrZero, Positive, check_ranges
from .plumbing.watch import watchable_scan

MESH_AXES = ("replica", "data", "context", "model")
BATCH = ("replica", "data")  # the mesh axes that split batch rows
# Layers repeat after this many. A copy whose layers differ (a window in three of four, say) sets it
# and gives Block.init the layer's place among them.
PERIOD = 1
# The name of what a layer keeps for the backward pass beside the results of its matrix products.
KEPT = "kept"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model. Behaviours are edits in a copy, not knobs.

    Raises:
        ValueError: sizes that do not fit together; the message says what to change.
    """

    vocab_size: Count = 4096
    """Token ids that the model knows; at least the token store's."""
    d_model: Count = 128
    """Width of the residual stream."""
    n_layers: Count = 4
    """Transformer blocks."""
    n_heads: Count = 2
    """Query heads."""
    n_kv_heads: Count = 1
    """Key/value heads, each shared by n_heads / n_kv_heads query heads."""
    head_dim: Count = 64
    """Width of one head."""
    d_ff: Count = 512
    """Width of the MLP's hidden layer."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary frequencies; raise it with the sequence length."""
    scan_unroll: Count = 1
    """Layers, or loss chunks, unrolled per scan step: 1 compiles fastest, more may run faster."""
    remat_layers: CountOrZero = 0
    """Leading layers that recompute everything in the backward pass: less memory, more time."""
    attention: Literal["auto", "chunks", "splash", "cudnn"] = "auto"
    """In chunks of queries, or by a kernel of TPUs or GPUs. auto: splash on a TPU, else chunks."""
    query_chunk: Count = 512
    """Positions per row whose attention scores are in memory at a time, in chunks of queries."""
    loss_chunk: Count = 1024
    """Tokens per device whose float32 logits are in memory at a time in the loss."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of activations and matrix products. auto: float32 on a CPU, else bfloat16."""

    def __post_init__(self):
        check_ranges(self)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}: "
                "every key/value head serves the same number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs")
        if self.remat_layers > self.n_layers:
            raise ValueError(
                f"remat_layers={self.remat_layers}: must be at most n_layers={self.n_layers}"
            )
        for name in ("n_layers", "remat_layers"):
            if getattr(self, name) % PERIOD:
                raise ValueError(
                    f"{name}={getattr(self, name)}: must be a multiple of PERIOD={PERIOD}"
                )

    # What the mesh, the plan and the MFU need to know. An edit of a layer changes its line here.

    SPLIT = {"d_model": "data", "n_kv_heads": "model", "d_ff": "model", "vocab_size": "model"}
    """Fields that a mesh axis divides, and the axis."""

    def keys(self, position: int) -> float:
        """Keys that the query at a position meets, as a mean over layers."""
        return float(position + 1)

    def flops_per_token(self, sequence_length: int) -> float:
        """Training FLOPs per token: 6 per matrix weight (PaLM, arXiv:2204.02311, appendix B).

        Attention counts the keys of `keys` alone. Document boundaries leave fewer; that is not
        counted, so that a run's MFU does not depend on its text.
        """
        attention = 2 * self.d_model * (self.n_heads + self.n_kv_heads) * self.head_dim
        keys = sum(map(self.keys, range(sequence_length))) / sequence_length
        scores = 2 * self.n_heads * self.head_dim * keys
        mlp = 2 * self.d_model * self.d_ff
        return 6.0 * (self.n_layers * (attention + scores + mlp) + self.d_model * self.vocab_size)

    def idle_parameters(self) -> int:
        """Number of weights a token does not pass through: none here, most of them with experts."""
        return 0

    def activation_bytes(self, rows: float, sequence_length: int, mesh: Mapping[str, int]) -> float:
        """Estimated bytes of activations and gathered weights on a device with `rows` rows.

        Each layer keeps its input, the results of its products, attention's, and the weights that
        it gathered or cast. A recomputed layer keeps its input alone, and one of them is recomputed
        at a time. Added to this are the gathered embedding and the larger of two: the loss, with
        the gathered head, the head's gradient and one chunk's logits; or one chunk's scores.
        """
        split, queries = mesh["model"], sequence_length / mesh["context"]
        positions = rows * queries
        width = 2 if self.compute_dtype == "bfloat16" else 4
        lanes = 128 if self.attention == "splash" else 1  # of a TPU, which fills heads up to them
        heads = 2 * (self.n_heads + self.n_kv_heads) * max(self.head_dim, lanes)
        layer = positions * width * (2 * self.d_model + (heads + self.d_ff) / split)
        outer = self.d_model * self.vocab_size
        embedding = gathered = 0.0
        if mesh["data"] > 1 or width == 2:
            weights = 2 * (self.n_heads + self.n_kv_heads) * self.head_dim + 2 * self.d_ff
            gathered, embedding = width * self.d_model * weights / split, 4 * outer
        kept = (self.n_layers - self.remat_layers) * (layer + gathered)
        if self.remat_layers:
            kept += self.remat_layers * positions * width * self.d_model + layer + gathered
        logits = 4 * min(self.loss_chunk, positions) * self.vocab_size
        chunk = 0 if self.attention in KERNELS else min(self.query_chunk, queries)
        scores = 3 * 4 * rows * chunk * sequence_length * self.n_heads
        mask = 2 * positions * sequence_length if self.attention == "cudnn" else 0
        return kept + embedding + mask + max((4 + width) * outer + logits, scores) / split


def token_axes() -> tuple[str, ...]:
    """The mesh axes that split tokens: those of BATCH, and `context` if it has several devices."""
    return (*BATCH, "context") if jax.sharding.get_abstract_mesh().shape["context"] > 1 else BATCH


def by_token(*rest: str | None) -> P:
    """How an array of a value per token is split. Token ids are not: a device has whole rows."""
    return P(BATCH, "context" if "context" in token_axes() else None, *rest)


def truncated_normal(key: PRNGKeyArray, shape: tuple[int, ...], std: float, spec: P) -> Array:
    """Float32 normal(0, std) values cut at 3 standard deviations, born sharded as `spec`."""
    return std * jax.random.truncated_normal(key, -3.0, 3.0, shape, jnp.float32, out_sharding=spec)


def gather(weight: Array, spec: P, dtype: jnp.dtype) -> Array:
    """All-gathers a weight's `data` shards just before use; its gradient is reduce-scattered.

    Forwards, the cast comes first, so that bfloat16 crosses the wire. Backwards, the devices'
    gradients are summed in float32: in bfloat16, a sum over many devices loses what is small.
    """
    shards = jax.typeof(weight)

    @jax.custom_vjp
    def gathered(weight: Array) -> Array:
        return gather_shards(weight.astype(dtype), spec)

    def backward(_: None, gradient: Array) -> tuple[Array]:
        anywhere = jnp.zeros(shards.shape, shards.dtype, out_sharding=shards.sharding.spec)
        transpose = jax.vjp(partial(gather_shards, spec=spec), anywhere)[1]
        return transpose(gradient.astype(shards.dtype))

    gathered.defvjp(lambda weight: (gathered(weight), None), backward)
    return checkpoint_name(gathered(weight), KEPT)


def gather_shards(weight: Array, spec: P) -> Array:
    """All-gathers a weight's `data` shards. Linear: its transpose sums and scatters a gradient.

    The result is `reduced` over token_axes: each device keeps its own tokens' unsummed gradient.
    The transpose of all_gather sums it over `data` and scatters it in one step, and only shards are
    left to be summed over the axes that hold copies.
    """
    shards, unsummed = jax.typeof(weight).sharding.spec, P(*spec, reduced=set(token_axes()))
    if jax.sharding.get_abstract_mesh().shape["data"] == 1:  # there is one shard only
        return jax.reshard(weight, unsummed)
    copy_axes = tuple(axis for axis in token_axes() if axis not in shards)

    def local(shard: Array) -> Array:
        dimension = shards.index("data")
        shard = jax.lax.pcast(shard, copy_axes, to="reduced")
        # Without dimensions of 1 (one key/value head): of these, libtpu cannot compile the sum.
        single = [i for i, size in enumerate(shard.shape) if size == 1 and i != dimension]
        axis = dimension - sum(i < dimension for i in single)
        shard = jnp.squeeze(shard, single)
        whole = jax.lax.all_gather(shard, "data", axis=axis, tiled=True, to="reduced")
        return jnp.expand_dims(whole, single)

    whole = P(*(None if axis == "data" else axis for axis in shards), reduced=set(token_axes()))
    return jax.reshard(jax.shard_map(local, out_specs=whole)(weight), unsummed)


def for_products(x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """x for a layer's products with weights that `model` splits: call it once, before the first.

    Each product's gradient of x is a sum over `model`. Declared `reduced`, the gradients of all
    products are added first, and only their sum crosses `model`.
    """
    return jax.reshard(x, P(*by_token(None), reduced={"model"}))


class RMSNorm(eqx.Module):
    """Root-mean-square norm over the last axis (arXiv:1910.07467), statistics in float32."""

    scale: Float[Array, "*L width"]

    @staticmethod
    def init(width: int) -> "RMSNorm":
        return RMSNorm(jnp.ones(width, out_sharding=P(None)))

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + 1e-6)
        return (x32 * jnp.expand_dims(self.scale, range(x.ndim - 1))).astype(x.dtype)


Rope = tuple[Float[Array, "B S 1 R"], Float[Array, "B S 1 R"]]


@jax.named_scope("attention/rotary")
def rope_angles(positions: Int[Array, "B S"], head_dim: int, theta: float) -> Rope:
    """Cosine and sine of each position's rotation (RoFormer, arXiv:2104.09864), in float32."""
    exponents = jnp.arange(head_dim // 2, dtype=jnp.float32) / (head_dim // 2)
    angles = positions.astype(jnp.float32)[:, :, None, None] * (theta**-exponents)[None, None, None]
    return jnp.cos(angles), jnp.sin(angles)


@jax.named_scope("rotary")
def rotate(x: Float[Array, "B S heads H"], rope: Rope) -> Float[Array, "B S heads H"]:
    """Turns the pair (x[i], x[i + H/2]) of every head by its position's angle."""
    cos, sin = rope
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(eqx.Module):
    """Grouped-query causal attention that never leaves a document, with QK-norm."""

    w_q: Float[Array, "*L D N H"]
    w_k: Float[Array, "*L D K H"]
    w_v: Float[Array, "*L D K H"]
    w_o: Float[Array, "*L N H D"]
    q_norm: RMSNorm
    k_norm: RMSNorm
    kernel: str = eqx.field(static=True)
    query_chunk: int = eqx.field(static=True)

    @staticmethod
    def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "Attention":
        k_q, k_k, k_v, k_o = jax.random.split(key, 4)
        d, n, k, h = cfg.d_model, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim
        # Residual projections shrink with depth so that the stream's variance does not grow with
        # it (GPT-2).
        out_std = (n * h) ** -0.5 / (2 * cfg.n_layers) ** 0.5
        return Attention(
            w_q=truncated_normal(k_q, (d, n, h), d**-0.5, P("data", "model", None)),
            w_k=truncated_normal(k_k, (d, k, h), d**-0.5, P("data", "model", None)),
            w_v=truncated_normal(k_v, (d, k, h), d**-0.5, P("data", "model", None)),
            w_o=truncated_normal(k_o, (n, h, d), out_std, P("model", None, "data")),
            q_norm=RMSNorm.init(h),
            k_norm=RMSNorm.init(h),
            kernel=cfg.attention,
            query_chunk=cfg.query_chunk,
        )

    @jax.named_scope("attention")
    def __call__(
        self, x: Float[Array, "B S D"], rope: Rope, segment_ids: Int[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        by_head = P(None, "model", None)
        x = for_products(x)
        q = jnp.einsum("bsd,dnh->bsnh", x, gather(self.w_q, by_head, x.dtype))
        k = jnp.einsum("bsd,dkh->bskh", x, gather(self.w_k, by_head, x.dtype))
        v = jnp.einsum("bsd,dkh->bskh", x, gather(self.w_v, by_head, x.dtype))
        q, k = rotate(self.q_norm(q), rope), rotate(self.k_norm(k), rope)
        y = self.attend(q, k, v, segment_ids)
        w_o = gather(self.w_o, P("model", None, None), x.dtype)
        return jnp.einsum("bsnh,nhd->bsd", y, w_o, out_sharding=by_token(None))

    def sees(self, query: Array | np.ndarray, key: Array | np.ndarray) -> Array | np.ndarray:
        """Whether queries see keys of the same document, by the positions of both in the row."""
        return query >= key

    @jax.named_scope("scores")
    def attend(
        self,
        q: Float[Array, "B S N H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        segment_ids: Int[Array, "B S"],
    ) -> Float[Array, "B S N H"]:
        """softmax(q k / sqrt(H)) v over the keys of the same document that `sees` admits."""
        kernel = KERNELS.get(self.kernel)
        attend = partial(kernel, sees=self.sees, kept=KEPT) if kernel else self.attend_chunks
        # Nothing of another row or head is needed: each device attends over its own, from its part
        # of a row to all of it. Of what a kernel returns, JAX cannot tell that it varies.
        local, heads = to_whole_rows(attend, "context"), by_token("model", None)
        return jax.shard_map(local, out_specs=heads, check_vma=not kernel)(q, k, v, segment_ids)

    def attend_chunks(
        self,
        q: Float[Array, "B Q N H"],
        k: Float[Array, "B S K H"],
        v: Float[Array, "B S K H"],
        segment_ids: Int[Array, "B S"],
        part: int | Int[Array, ""] = 0,
    ) -> Float[Array, "B Q N H"]:
        """Attends `query_chunk` queries at a time, to all keys from the first to the last seen.

        `part` says which of the row's S / Q parts the queries are, from 0.
        """
        # Recomputed in the backward pass: only one chunk's scores are in memory at a time.
        attend = jax.checkpoint(jax.nn.dot_product_attention)
        size, outputs = q.shape[1], []
        positions, numbers = np.arange(k.shape[1]), jnp.arange(k.shape[1])
        own = part * size + numbers[:size]
        segments = jax.lax.dynamic_slice_in_dim(segment_ids, part * size, size, axis=1)
        for start in range(0, size, self.query_chunk):
            queries = slice(start, start + self.query_chunk)
            anywhere = positions.reshape(-1, size)[:, queries].reshape(-1, 1)  # in every part
            seen = np.flatnonzero(self.sees(anywhere, positions[None]).any(axis=0))
            keys = slice(seen[0], seen[-1] + 1)
            mask = segments[:, None, queries, None] == segment_ids[:, None, None, keys]
            mask &= self.sees(own[queries, None], numbers[None, keys])[None, None]
            outputs.append(attend(q[:, queries], k[:, keys], v[:, keys], mask=mask))
        return checkpoint_name(jnp.concatenate(outputs, axis=1), KEPT)


class MLP(eqx.Module):
    """Two matrices around a squared ReLU (Primer, arXiv:2109.08668)."""

    w_up: Float[Array, "*L D F"]
    w_down: Float[Array, "*L F D"]

    @staticmethod
    def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "MLP":
        k_up, k_down = jax.random.split(key)
        d, f = cfg.d_model, cfg.d_ff
        out_std = f**-0.5 / (2 * cfg.n_layers) ** 0.5
        return MLP(
            w_up=truncated_normal(k_up, (d, f), d**-0.5, P("data", "model")),
            w_down=truncated_normal(k_down, (f, d), out_std, P("model", "data")),
        )

    @jax.named_scope("mlp")
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        x = for_products(x)
        up = jnp.einsum("bsd,df->bsf", x, gather(self.w_up, P(None, "model"), x.dtype))
        w_down = gather(self.w_down, P("model", None), x.dtype)
        hidden = jnp.square(jax.nn.relu(up))
        return jnp.einsum("bsf,fd->bsd", hidden, w_down, out_sharding=by_token(None))


class Block(eqx.Module):
    """Pre-norm residual block: attention, then MLP."""

    attn_norm: RMSNorm
    attn: Attention
    mlp_norm: RMSNorm
    mlp: MLP

    @staticmethod
    def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "Block":
        k_attn, k_mlp = jax.random.split(key)
        return Block(
            attn_norm=RMSNorm.init(cfg.d_model),
            attn=Attention.init(cfg, key=k_attn),
            mlp_norm=RMSNorm.init(cfg.d_model),
            mlp=MLP.init(cfg, key=k_mlp),
        )

    def __call__(
        self, x: Float[Array, "B S D"], rope: Rope, segment_ids: Int[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        x = x + self.attn(self.attn_norm(x), rope, segment_ids)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(eqx.Module):
    """Token ids in, final hidden states out; `logits` and `loss_sums` apply the untied head."""

    embed: Float[Array, "V D"]
    embed_norm: RMSNorm
    blocks: tuple[Block, ...]  # one per place in PERIOD; arrays have a leading axis of L / PERIOD
    final_norm: RMSNorm
    head: Float[Array, "D V"]
    cfg: ModelConfig = eqx.field(static=True)

    @staticmethod
    def init(cfg: ModelConfig, *, key: PRNGKeyArray) -> "Transformer":
        k_embed, k_blocks, k_head = jax.random.split(key, 3)
        d, v = cfg.d_model, cfg.vocab_size
        layers = jax.random.split(k_blocks, cfg.n_layers)
        return Transformer(
            # Small, so that AdamW's steps turn a row quickly; embed_norm makes it of unit size.
            embed=truncated_normal(k_embed, (v, d), 0.05, P("model", "data")),
            embed_norm=RMSNorm.init(d),
            blocks=tuple(
                jax.vmap(lambda k: Block.init(cfg, key=k))(layers[place::PERIOD])
                for place in range(PERIOD)
            ),
            final_norm=RMSNorm.init(d),
            head=truncated_normal(k_head, (d, v), d**-0.5, P("data", "model")),
            cfg=cfg,
        )

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        segment_ids: Int[Array, "B S"],
        positions: Int[Array, "B S"],
    ) -> Float[Array, "B S D"]:
        """Final hidden states.

        Args:
            tokens: token ids.
            segment_ids: which packed document each token belongs to; attention stays within.
            positions: index of each token in its document; it restarts with every document.
        """
        cfg = self.cfg
        dtype = jnp.dtype(cfg.compute_dtype)
        tokens, positions = (jax.reshard(x, by_token()) for x in (tokens, positions))
        rope = rope_angles(positions, cfg.head_dim, cfg.rope_theta)
        with jax.named_scope("embedding"):
            # In float32: a frequent token's gradient is a sum over thousands of positions.
            embed = gather(self.embed, P(None, None), jnp.dtype(jnp.float32))
            x = embed.at[tokens].get(out_sharding=by_token(None))
        x = self.embed_norm(x).astype(dtype)

        def layer(x: Array, block: Block) -> Array:
            return block(x, rope, segment_ids)

        return self.final_norm(scan_layers(layer, x, self.blocks, cfg))

    def logits(self, hidden: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        """Float32 logits of the next token, all positions at once: for sampling small batches."""
        head = gather(self.head, P(None, "model"), hidden.dtype)
        products = jnp.einsum("bsd,dv->bsv", hidden, head, preferred_element_type=jnp.float32)
        return logits_of(products)

    @jax.named_scope("loss")
    def loss_sums(
        self,
        hidden: Float[Array, "B S D"],
        targets: Int[Array, "B S"],
        weights: Float[Array, "B S"],
        z_loss: float,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Weighted sums over tokens of (cross-entropy + z-loss, cross-entropy alone), in nats.

        Only the first carries a gradient. z_loss scales the square of the log normaliser, which
        keeps logits from drifting (PaLM, arXiv:2204.02311, section 5).
        """
        chunk, unroll = self.cfg.loss_chunk, self.cfg.scan_unroll
        total, cross_entropy = chunked_loss(
            hidden, self.head, targets, weights, chunk, z_loss, unroll
        )
        return total, jax.lax.stop_gradient(cross_entropy)


def scan_layers[Carry](
    layer: Callable[[Carry, Block], Carry],
    carry: Carry,
    blocks: tuple[Block, ...],
    cfg: ModelConfig,
) -> Carry:
    """Applies `layer` with every block in turn, PERIOD layers compiled once for all of them.

    `carry` is x, or a tree of x and whatever else a copy hands from layer to layer.
    """

    def scan(layer: Callable[[Carry, Block], Carry], carry: Carry, groups: slice) -> Carry:
        part = jax.tree.map(lambda weight: weight[groups], blocks)
        count = len(jax.tree.leaves(part)[0])
        if count == 0:
            return carry

        def group(carry: Carry, blocks: tuple[Block, ...]) -> tuple[Carry, None]:
            for block in blocks:
                carry = layer(carry, block)
            return carry, None

        return watchable_scan(group, carry, part, unroll=min(cfg.scan_unroll, count))[0]

    # The first layers are the ones to recompute: their activations live longest.
    split = cfg.remat_layers // PERIOD
    carry = scan(jax.checkpoint(layer), carry, slice(0, split))
    # The others compute again what is cheap: norms, rotations, activation functions.
    kept = jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(KEPT),
    )
    return scan(jax.checkpoint(layer, policy=kept, prevent_cse=False), carry, slice(split, None))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def chunked_loss(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
    chunk: int,
    z_loss: float,
    unroll: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums of (loss, cross-entropy), with float32 logits of `chunk` tokens in memory at a time.

    The forward pass also computes the gradients, while a chunk's logits are at hand: the loss is a
    scalar, so the backward pass only scales them. No logits are stored and none computed twice (the
    idea of Liger Kernel's fused linear cross-entropy, arXiv:2410.10989). The gradient is that of
    the first sum. `head` is given as its `data` shards.
    """
    arrays = (hidden, head, targets, weights)
    return loss_and_gradients(*arrays, chunk, z_loss, unroll, differentiate=False)[0]


LossSums = tuple[Float[Array, ""], Float[Array, ""]]


def loss_and_gradients(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
    chunk: int,
    z_loss: float,
    unroll: int,
    *,
    differentiate: bool,
) -> tuple[LossSums, Any]:
    """The sums of (loss, cross-entropy), and the loss's gradients with respect to (hidden, head).

    The gradients are None unless `differentiate`. Each device takes its own rows and vocabulary
    entries (shard_map).
    """

    def by_chunk(x: Array) -> Array:
        """(b, S, ...) -> (chunks, tokens, ...), of the same size; the last is filled with zeros."""
        tokens = x.reshape(-1, *x.shape[2:])
        chunks = -(-len(tokens) // chunk)
        size = -(-len(tokens) // chunks)
        padding = [(0, chunks * size - len(tokens)), *[(0, 0)] * (tokens.ndim - 1)]
        return jnp.pad(tokens, padding).reshape(chunks, size, *x.shape[2:])

    def local(hidden: Array, head: Array, targets: Array, weights: Array) -> Any:
        head = jax.lax.all_gather(head.astype(hidden.dtype), "data", axis=0, tiled=True)

        def add_chunk(d_head: Array, inputs: tuple[Array, Array, Array]) -> Any:
            x, *labels = inputs
            products = jnp.einsum("td,dv->tv", x, head, preferred_element_type=jnp.float32)
            if not differentiate:
                return d_head, (jnp.stack(chunk_loss(products, *labels, z_loss)), None)
            loss, pull_back, cross_entropy = jax.vjp(
                lambda products: chunk_loss(products, *labels, z_loss), products, has_aux=True
            )
            d_products = pull_back(jnp.ones_like(loss))[0].astype(x.dtype)
            d_hidden = jnp.einsum("tv,dv->td", d_products, head)
            d_head += jnp.einsum("td,tv->dv", x, d_products, preferred_element_type=jnp.float32)
            return d_head, (jnp.stack([loss, cross_entropy]), d_hidden)

        zeros = jnp.zeros(head.shape if differentiate else (), jnp.float32)
        # Each device adds up its own.
        d_head = jax.lax.pcast(zeros, (*token_axes(), "model"), to="varying")
        inputs = (by_chunk(hidden), by_chunk(targets), by_chunk(weights))
        d_head, (sums, d_hidden) = jax.lax.scan(add_chunk, d_head, inputs, unroll=unroll)
        loss, cross_entropy = jax.lax.psum(jnp.sum(sums, axis=0), token_axes())
        if not differentiate:
            return (loss, cross_entropy), None
        d_hidden = jax.lax.psum(d_hidden, "model").reshape(-1, hidden.shape[-1])
        d_hidden = d_hidden[: targets.size].reshape(hidden.shape)
        d_head = jax.lax.psum_scatter(d_head, "data", scatter_dimension=0, tiled=True)
        d_head = jax.lax.psum(d_head, tuple(axis for axis in token_axes() if axis != "data"))
        return (loss, cross_entropy), (d_hidden, d_head)

    shard, stream = P("data", "model"), by_token(None)
    targets, weights = (jax.reshard(x, by_token()) for x in (targets, weights))
    return jax.shard_map(
        local,
        in_specs=(stream, shard, by_token(), by_token()),
        out_specs=((P(), P()), (stream, shard) if differentiate else None),
    )(hidden, head, targets, weights)


def logits_of(products: Float[Array, "*batch V"]) -> Float[Array, "*batch V"]:
    """Logits from the products of hidden states and head, for the loss and for samples.

    The products themselves. A soft-cap is written here: the loss is differentiated through it.
    """
    return products


def chunk_loss(
    products: Float[Array, "T local_V"],
    targets: Int[Array, "T"],
    weights: Float[Array, "T"],
    z_loss: float,
) -> LossSums:
    """One device's sums of (loss, cross-entropy) over T tokens; the first is differentiated.

    Softmax is over all devices' vocabulary entries, so its normaliser is summed over `model`.
    """
    logits = logits_of(products)
    largest = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(logits, axis=-1)), "model")
    normaliser = jnp.sum(jnp.exp(logits - largest[:, None]), axis=-1)
    log_z = largest + jnp.log(jax.lax.psum(normaliser, "model"))
    first = logits.shape[-1] * jax.lax.axis_index("model")  # this device's first vocabulary entry
    target_logit = jax.lax.psum(pick(logits, targets - first), "model")
    cross_entropy = weights * (log_z - target_logit)
    loss = jnp.sum(cross_entropy + weights * z_loss * jnp.square(log_z))
    return loss, jnp.sum(cross_entropy)


@jax.custom_jvp
def pick(logits: Float[Array, "T local_V"], entry: Int[Array, "T"]) -> Float[Array, "T"]:
    """Each token's logit of one entry, or 0 where another device holds it."""
    size = logits.shape[-1]
    index = jnp.where(entry < 0, size, entry)[:, None]
    return jnp.take_along_axis(logits, index, axis=-1, mode="fill", fill_value=0.0)[:, 0]


@pick.defjvp
def _pick_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    """Backwards a comparison, which fuses with the softmax; JAX's own rule would scatter."""
    logits, entry = primals
    is_entry = entry[:, None] == jnp.arange(logits.shape[-1])[None]
    return pick(logits, entry), jnp.sum(jnp.where(is_entry, tangents[0], 0.0), axis=-1)


def _chunked_loss_forward(
    hidden: Array,
    head: Array,
    targets: Array,
    weights: Array,
    chunk: int,
    z_loss: float,
    unroll: int,
) -> tuple[LossSums, tuple[Array, ...]]:
    arrays = (hidden, head, targets, weights)
    sums, gradients = loss_and_gradients(*arrays, chunk, z_loss, unroll, differentiate=True)
    return sums, gradients


def _chunked_loss_backward(
    chunk: int,
    z_loss: float,
    unroll: int,
    residuals: tuple[Array, Array],
    cotangents: tuple[Array, Array],
) -> tuple[Array, Array, None, None]:
    d_hidden, d_head = residuals
    d_loss = cotangents[0]
    return d_hidden * d_loss.astype(d_hidden.dtype), d_head * d_loss, None, None


chunked_loss.defvjp(_chunked_loss_forward, _chunked_loss_backward)
