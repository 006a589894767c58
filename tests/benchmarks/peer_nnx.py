"""The same model and training step in Flax NNX."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tests.benchmarks.worker import Job, Step, serve

Rope = tuple[jax.Array, jax.Array]
Batch = dict[str, jax.Array]


def rope_angles(positions: jax.Array, head_dim: int, theta: float) -> Rope:
    """Cosine and sine, (B, S, 1, head_dim / 2)."""
    frequencies = theta ** -jnp.linspace(0, 1, head_dim // 2, endpoint=False)
    angles = positions[..., None, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rope: Rope) -> jax.Array:
    cos, sin = rope
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


class Attention(nnx.Module):
    def __init__(self, model: dict, *, rngs: nnx.Rngs):
        width, head_dim = model["d_model"], model["head_dim"]
        query, key = (model["n_heads"], head_dim), (model["n_kv_heads"], head_dim)
        self.q = nnx.LinearGeneral(width, query, use_bias=False, rngs=rngs)
        self.k = nnx.LinearGeneral(width, key, use_bias=False, rngs=rngs)
        self.v = nnx.LinearGeneral(width, key, use_bias=False, rngs=rngs)
        self.o = nnx.LinearGeneral(query, width, axis=(-2, -1), use_bias=False, rngs=rngs)
        self.q_norm = nnx.RMSNorm(head_dim, rngs=rngs)
        self.k_norm = nnx.RMSNorm(head_dim, rngs=rngs)

    def __call__(self, x: jax.Array, rope: Rope, mask: jax.Array) -> jax.Array:
        q = rotate(self.q_norm(self.q(x)), rope)
        k = rotate(self.k_norm(self.k(x)), rope)
        return self.o(jax.nn.dot_product_attention(q, k, self.v(x), mask=mask))


class Block(nnx.Module):
    def __init__(self, model: dict, *, rngs: nnx.Rngs):
        width, hidden = model["d_model"], model["d_ff"]
        self.attn_norm = nnx.RMSNorm(width, rngs=rngs)
        self.attn = Attention(model, rngs=rngs)
        self.mlp_norm = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, hidden, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(hidden, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array, rope: Rope, mask: jax.Array) -> jax.Array:
        x = x + self.attn(self.attn_norm(x), rope, mask)
        return x + self.down(jnp.square(nnx.relu(self.up(self.mlp_norm(x)))))


class Transformer(nnx.Module):
    def __init__(self, model: dict, *, rngs: nnx.Rngs):
        self.head_dim, self.rope_theta = model["head_dim"], model["rope_theta"]
        width, vocabulary = model["d_model"], model["vocab_size"]
        self.embed = nnx.Embed(vocabulary, width, rngs=rngs)
        self.embed_norm = nnx.RMSNorm(width, rngs=rngs)
        self.blocks = nnx.List([Block(model, rngs=rngs) for _ in range(model["n_layers"])])
        self.final_norm = nnx.RMSNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, vocabulary, use_bias=False, rngs=rngs)

    def __call__(self, batch: Batch) -> jax.Array:
        """Logits, (B, S, V)."""
        segments, length = batch["segment_ids"], batch["tokens"].shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))
        mask = causal & (segments[:, None, :, None] == segments[:, None, None, :])
        rope = rope_angles(batch["positions"], self.head_dim, self.rope_theta)
        x = self.embed_norm(self.embed(batch["tokens"]))
        for block in self.blocks:
            x = block(x, rope, mask)
        return self.head(self.final_norm(x))


def load(model: Transformer, weights: dict[str, np.ndarray]) -> None:
    """Copies the template's weights; its blocks are stacked. KeyError: one has no place here."""
    blocks = model.blocks
    places: dict[str, list[Any]] = {
        "embed": [model.embed.embedding],
        "embed_norm.scale": [model.embed_norm.scale],
        "blocks.attn_norm.scale": [block.attn_norm.scale for block in blocks],
        "blocks.attn.w_q": [block.attn.q.kernel for block in blocks],
        "blocks.attn.w_k": [block.attn.k.kernel for block in blocks],
        "blocks.attn.w_v": [block.attn.v.kernel for block in blocks],
        "blocks.attn.w_o": [block.attn.o.kernel for block in blocks],
        "blocks.attn.q_norm.scale": [block.attn.q_norm.scale for block in blocks],
        "blocks.attn.k_norm.scale": [block.attn.k_norm.scale for block in blocks],
        "blocks.mlp_norm.scale": [block.mlp_norm.scale for block in blocks],
        "blocks.mlp.w_up": [block.up.kernel for block in blocks],
        "blocks.mlp.w_down": [block.down.kernel for block in blocks],
        "final_norm.scale": [model.final_norm.scale],
        "head": [model.head.kernel],
    }
    for name, values in weights.items():
        layers = values if name.startswith("blocks.") else [values]
        for parameter, value in zip(places[name], layers, strict=True):
            parameter[...] = value


def make_optimizer(model: Transformer, config: dict) -> nnx.Optimizer:
    transform = optax.chain(
        optax.clip_by_global_norm(config["grad_clip"]),
        optax.adamw(
            optax.cosine_decay_schedule(config["learning_rate"], config["steps"]),
            b1=config["beta1"],
            b2=config["beta2"],
            weight_decay=config["weight_decay"],
            mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),  # not the norms
        ),
    )
    return nnx.Optimizer(model, transform, wrt=nnx.Param)


def build(job: Job) -> Step:
    config = job.config
    model = Transformer(config["model"], rngs=nnx.Rngs(0))
    load(model, job.weights)
    optimizer = make_optimizer(model, config)
    batches = [{k: jnp.asarray(v) for k, v in batch.items()} for batch in job.batches]

    def loss_fn(model: Transformer, batch: Batch) -> tuple[jax.Array, jax.Array]:
        logits, weights = model(batch), batch["loss_weights"]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
        log_z = jax.nn.logsumexp(logits, axis=-1)
        count = jnp.maximum(weights.sum(), 1.0)
        loss = ((nll + config["z_loss"] * log_z**2) * weights).sum() / count
        return loss, (nll * weights).sum() / count

    @nnx.jit(donate_argnums=(0, 1))
    def train_step(
        model: Transformer, optimizer: nnx.Optimizer, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        (_, cross_entropy), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, batch)
        optimizer.update(model, grads)
        return cross_entropy, optax.tree.norm(grads)

    return lambda index: train_step(model, optimizer, batches[index % len(batches)])


if __name__ == "__main__":
    packages = (jax, flax, optax)
    serve(build, {package.__name__: package.__version__ for package in packages})
