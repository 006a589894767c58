"""A speedrun of the tiny-cpu track: data, model, loss, optimizer and run in one program.

    python run.py --data STORE --seed 0 --out RUN_DIR

The rules: docs/speedrun/rules.md. What it takes from experiments/grug/base/ is copied here, without
what a single device does not need: shardings, resuming, microbatches.

Dimension letters; an einsum uses the same ones in lower case:
    B batch rows      S sequence positions   D model width   N query heads   K key/value heads
    H head width      F MLP width            V vocabulary    L layers   R = H / 2 rotary pairs
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import tensorstore as ts
from jaxtyping import Array, Float, Int, PRNGKeyArray

HERE = Path(__file__).resolve().parent
TRACK = "tiny-cpu"


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything the run depends on but its seed."""

    vocab_size: int = 4096
    d_model: int = 128
    n_layers: int = 2
    n_heads: int = 2
    n_kv_heads: int = 1
    head_dim: int = 64
    d_ff: int = 512
    rope_theta: float = 10_000.0
    loss_chunk: int = 64
    steps: int = 250
    batch_size: int = 4
    sequence_length: int = 256
    learning_rate: float = 2e-2
    warmup_steps: int = 20
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.95
    ns_steps: int = 3
    z_loss: float = 1e-4


# -- data ----------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Windows of a split's stream of tokens, which documents follow one another in."""

    tokens: Int[np.ndarray, "B S"]
    targets: Int[np.ndarray, "B S"]
    segment_ids: Int[np.ndarray, "B S"]  # which document of the row
    loss_weights: Float[np.ndarray, "B S"]  # 0 where the target opens another document


class Split:
    """One split of a token store (docs/reference/token-store.md), in memory."""

    def __init__(self, store: Path, name: str, length: int):
        self.tokens = read_array(store / name / "tokens").astype(np.int32)
        self.starts = np.zeros(len(self.tokens), bool)
        self.starts[read_array(store / name / "offsets")[:-1].astype(np.int64)] = True
        self.length = length
        self.windows = -(-(len(self.tokens) - 1) // length)

    def batch(self, windows: np.ndarray) -> Batch:
        """The windows of these numbers; past the end of the stream weights are 0."""
        at = windows[:, None] * self.length + np.arange(self.length + 1)
        inside = at < len(self.tokens)
        at = np.minimum(at, len(self.tokens) - 1)
        tokens, starts = self.tokens[at], self.starts[at]
        weights = (inside & ~starts)[:, 1:].astype(np.float32)
        return Batch(tokens[:, :-1], tokens[:, 1:], np.cumsum(starts[:, :-1], axis=1), weights)

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless batches; every window once before any comes again."""
        draw = np.random.default_rng(seed)
        while True:
            order = draw.permutation(self.windows)
            for i in range(0, len(order) - batch_size + 1, batch_size):
                yield self.batch(order[i : i + batch_size])

    def whole(self, batch_size: int) -> Iterator[Batch]:
        """All windows in order."""
        for i in range(0, self.windows, batch_size):
            yield self.batch(np.arange(i, i + batch_size))


def read_array(path: Path) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return ts.open(spec, read=True).result().read().result()


# -- model ---------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(spec: str, left: Array, right: Array) -> Array:
    """An einsum of float32 operands, rounded to bfloat16; sums and result are float32.

    XLA's CPU kernels use the processor's units for bfloat16 in this kind of product alone: where
    the result is bfloat16 as well, or one operand float32, they widen both operands first. JAX's
    own gradient has a float32 operand, so it is written out here.
    """
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.einsum(spec, left, right, preferred_element_type=jnp.float32)


def product_forward(spec, left, right):
    return product(spec, left, right), (left, right)


def product_backward(spec, operands, d_out):
    left, right = operands
    into, out = spec.split("->")
    a, b = into.split(",")
    return product(f"{out},{b}->{a}", d_out, right), product(f"{a},{out}->{b}", left, d_out)


product.defvjp(product_forward, product_backward)


def truncated_normal(key: PRNGKeyArray, shape: tuple[int, ...], std: float) -> Array:
    return std * jax.random.truncated_normal(key, -3.0, 3.0, shape, jnp.float32)


class RMSNorm(eqx.Module):
    """Root-mean-square norm over the last axis (arXiv:1910.07467)."""

    scale: Float[Array, "*L width"]

    @staticmethod
    def init(width: int) -> "RMSNorm":
        return RMSNorm(jnp.ones(width))

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return (
            x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale
        )


Rope = tuple[Float[Array, "S 1 R"], Float[Array, "S 1 R"]]


def rope_angles(length: int, head_dim: int, theta: float) -> Rope:
    """Cosine and sine of each position's rotation (RoFormer, arXiv:2104.09864).

    Scores depend on distances alone, so positions need not restart with a document.
    """
    exponents = jnp.arange(head_dim // 2) / (head_dim // 2)
    angles = jnp.arange(length)[:, None, None] * theta**-exponents
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B S heads H"], rope: Rope) -> Float[Array, "B S heads H"]:
    """Turns the pair (x[i], x[i + H/2]) of every head by its position's angle."""
    cos, sin = rope
    left, right = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


class Attention(eqx.Module):
    """Grouped-query causal attention that never leaves a document, with QK-norm."""

    w_q: Float[Array, "*L D N H"]
    w_k: Float[Array, "*L D K H"]
    w_v: Float[Array, "*L D K H"]
    w_o: Float[Array, "*L N H D"]
    q_norm: RMSNorm
    k_norm: RMSNorm

    @staticmethod
    def init(cfg: Config, *, key: PRNGKeyArray) -> "Attention":
        k_q, k_k, k_v, k_o = jax.random.split(key, 4)
        d, n, k, h = cfg.d_model, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim
        out_std = (n * h) ** -0.5 / (2 * cfg.n_layers) ** 0.5
        return Attention(
            w_q=truncated_normal(k_q, (d, n, h), d**-0.5),
            w_k=truncated_normal(k_k, (d, k, h), d**-0.5),
            w_v=truncated_normal(k_v, (d, k, h), d**-0.5),
            w_o=truncated_normal(k_o, (n, h, d), out_std),
            q_norm=RMSNorm.init(h),
            k_norm=RMSNorm.init(h),
        )

    def __call__(
        self, x: Float[Array, "B S D"], rope: Rope, segment_ids: Int[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        q = product("bsd,dnh->bsnh", x, self.w_q)
        k = product("bsd,dkh->bskh", x, self.w_k)
        v = product("bsd,dkh->bskh", x, self.w_v)
        q, k = rotate(self.q_norm(q), rope), rotate(self.k_norm(k), rope)
        same_document = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        y = jax.nn.dot_product_attention(q, k, v, mask=same_document, is_causal=True)
        return product("bsnh,nhd->bsd", y, self.w_o)


class MLP(eqx.Module):
    """Two matrices around a squared ReLU (Primer, arXiv:2109.08668)."""

    w_up: Float[Array, "*L D F"]
    w_down: Float[Array, "*L F D"]

    @staticmethod
    def init(cfg: Config, *, key: PRNGKeyArray) -> "MLP":
        k_up, k_down = jax.random.split(key)
        d, f = cfg.d_model, cfg.d_ff
        out_std = f**-0.5 / (2 * cfg.n_layers) ** 0.5
        return MLP(
            w_up=truncated_normal(k_up, (d, f), d**-0.5),
            w_down=truncated_normal(k_down, (f, d), out_std),
        )

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        hidden = jnp.square(jax.nn.relu(product("bsd,df->bsf", x, self.w_up)))
        return product("bsf,fd->bsd", hidden, self.w_down)


class Block(eqx.Module):
    """Pre-norm residual block: attention, then MLP."""

    attn_norm: RMSNorm
    attn: Attention
    mlp_norm: RMSNorm
    mlp: MLP

    @staticmethod
    def init(cfg: Config, *, key: PRNGKeyArray) -> "Block":
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
    """A batch in; out come weighted sums over its targets."""

    embed: Float[Array, "V D"]
    embed_norm: RMSNorm
    blocks: Block  # every array has a leading axis of L layers
    final_norm: RMSNorm
    head: Float[Array, "D V"]
    cfg: Config = eqx.field(static=True)

    @staticmethod
    def init(cfg: Config, *, key: PRNGKeyArray) -> "Transformer":
        k_embed, k_blocks, k_head = jax.random.split(key, 3)
        d, v = cfg.d_model, cfg.vocab_size
        return Transformer(
            embed=truncated_normal(k_embed, (v, d), 0.05),
            embed_norm=RMSNorm.init(d),
            blocks=jax.vmap(lambda k: Block.init(cfg, key=k))(
                jax.random.split(k_blocks, cfg.n_layers)
            ),
            final_norm=RMSNorm.init(d),
            head=truncated_normal(k_head, (d, v), d**-0.5),
            cfg=cfg,
        )

    def __call__(self, batch: Batch, z_loss: float) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Sums over the batch's real targets of (loss, cross-entropy), in nats."""
        cfg = self.cfg
        rope = rope_angles(batch.tokens.shape[1], cfg.head_dim, cfg.rope_theta)
        x = self.embed_norm(self.embed[batch.tokens])
        for layer in range(cfg.n_layers):
            block = jax.tree.map(lambda w, layer=layer: w[layer], self.blocks)
            x = block(x, rope, batch.segment_ids)
        x = self.final_norm(x)
        return chunked_loss(x, self.head, batch.targets, batch.loss_weights, cfg.loss_chunk, z_loss)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def chunked_loss(hidden, head, targets, weights, chunk, z_loss):
    """Sums of (loss, cross-entropy), holding the logits of `chunk` positions at a time.

    The forward pass leaves the gradient of the first sum behind, since a chunk's logits are at hand
    then (the idea of Liger Kernel's fused linear cross-entropy, arXiv:2410.10989).
    """
    return loss_and_gradients(hidden, head, targets, weights, chunk, z_loss)[0]


def loss_and_gradients(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "D V"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
    chunk: int,
    z_loss: float,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    loss, cross_entropy = jnp.zeros(()), jnp.zeros(())
    d_head, d_hidden = jnp.zeros_like(head), []
    for start in range(0, hidden.shape[1], chunk):
        h, t, w = (x[:, start : start + chunk] for x in (hidden, targets, weights))
        logits = product("bsd,dv->bsv", h, head)
        is_target = t[:, :, None] == jnp.arange(logits.shape[-1])
        log_z = jax.nn.logsumexp(logits, axis=-1)
        nll = w * (log_z - jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1))
        loss += jnp.sum(nll + w * z_loss * jnp.square(log_z))
        cross_entropy += jnp.sum(nll)
        probability = jnp.exp(logits - log_z[:, :, None])
        d_logits = probability * (1 + 2 * z_loss * log_z)[:, :, None] - is_target
        d_logits *= w[:, :, None]
        d_hidden.append(product("bsv,dv->bsd", d_logits, head))
        d_head += product("bsd,bsv->dv", h, d_logits)
    return (loss, cross_entropy), (jnp.concatenate(d_hidden, axis=1), d_head)


def loss_backward(chunk, z_loss, gradients, cotangents):
    return *(gradient * cotangents[0] for gradient in gradients), None, None


chunked_loss.defvjp(loss_and_gradients, loss_backward)


# -- optimizer and step --------------------------------------------------------------------------


def make_optimizer(cfg: Config) -> optax.GradientTransformation:
    """Muon for the blocks' matrices, AdamW for the rest; warmup, and a linear decay to zero.

    Muon (https://kellerjordan.github.io/posts/muon) makes a matrix's update orthogonal; scaled to
    AdamW's usual size (arXiv:2502.16982), both take the same learning rate.
    """
    rise = optax.linear_schedule(0.0, cfg.learning_rate, cfg.warmup_steps)
    fall = optax.linear_schedule(cfg.learning_rate, 0.0, cfg.steps - cfg.warmup_steps)
    schedule = optax.join_schedules([rise, fall], [cfg.warmup_steps])

    def matrices(model: Transformer) -> Any:
        """Which axes of a weight are a matrix's; the first is the layer."""
        numbers = optax.contrib.MuonDimensionNumbers
        into, out_of = numbers(1, (2, 3)), numbers((1, 2), 3)
        axes = {"w_q": into, "w_k": into, "w_v": into, "w_o": out_of}
        axes |= {"w_up": numbers(1, 2), "w_down": numbers(1, 2)}

        def of(path: Any, _: Array) -> Any:
            return axes.get(path[-1].name)

        return jax.tree_util.tree_map_with_path(of, model)

    return optax.contrib.muon(
        schedule,
        beta=cfg.momentum,
        ns_steps=cfg.ns_steps,
        weight_decay=cfg.weight_decay,
        adam_b1=cfg.beta1,
        adam_b2=cfg.beta2,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrices,
    )


State = tuple[Transformer, optax.OptState]


def make_step(cfg: Config, optimizer: optax.GradientTransformation, example: tuple[State, Batch]):
    """One compiled update, (state, batch) -> (state, cross-entropy in nats a token)."""

    def mean_loss(model: Transformer, batch: Batch) -> tuple[Array, Array]:
        loss, cross_entropy = model(batch, cfg.z_loss)
        count = jnp.sum(batch.loss_weights)
        return loss / count, cross_entropy / count

    def step(state: State, batch: Batch) -> tuple[State, Array]:
        model, opt_state = state
        (_, loss), grads = jax.value_and_grad(mean_loss, has_aux=True)(model, batch)
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return (optax.apply_updates(model, updates), opt_state), loss

    return jax.jit(step, donate_argnums=0).lower(*example).compile()


# -- run -----------------------------------------------------------------------------------------


def train(cfg: Config, store: Path, seed: int) -> tuple[Transformer, list[dict[str, float]], float]:
    """(model, a row of metrics a step, CPU seconds of the timed part).

    The clock runs from before the first batch is made until the last update is done.
    """
    split = Split(store, "train", cfg.sequence_length)
    optimizer = make_optimizer(cfg)
    model = Transformer.init(cfg, key=jax.random.PRNGKey(seed))
    state = (model, optimizer.init(model))
    batches = split.shuffled(cfg.batch_size, seed)
    example = split.batch(np.zeros(cfg.batch_size, np.int64))
    step = make_step(cfg, optimizer, (state, example))
    jax.block_until_ready(state)

    rows: list[dict[str, float]] = []
    cpu, last = time.process_time(), time.perf_counter()

    def read(loss: Array) -> None:
        """Waits for the step of this loss and adds its row."""
        nonlocal last
        value, number = float(loss), len(rows) + 1
        now = time.perf_counter()
        rows.append(metrics(cfg, number, value, now - last))
        last = now
        if number % 20 == 0:
            print(f"step {number}/{cfg.steps}  loss {value:.3f}", flush=True)

    state, loss = step(state, next(batches))
    for batch in itertools.islice(batches, cfg.steps - 1):
        before = loss
        state, loss = step(state, batch)
        read(before)  # one step late: the device computes the next one meanwhile
    jax.block_until_ready(state)
    read(loss)
    return state[0], rows, time.process_time() - cpu


def metrics(cfg: Config, step: int, loss: float, took: float) -> dict[str, float]:
    if not math.isfinite(loss):
        sys.exit(f"step {step}: the loss is {loss}")
    tokens = cfg.batch_size * cfg.sequence_length
    return {
        "step": step,
        "train/loss": loss,
        "throughput/step_time": took,
        "throughput/tokens_per_second": tokens / took,
        "throughput/total_tokens": step * tokens,
    }


def evaluate(cfg: Config, store: Path, model: Transformer) -> dict[str, float]:
    """Loss over every target of the held-out split: each token but the first of a document."""
    split = Split(store, "heldout", cfg.sequence_length)
    token_bytes = read_array(store / "token_bytes")
    forward = jax.jit(lambda model, batch: model(batch, 0.0)[1])
    nats, targets, size = 0.0, 0, 0
    for batch in split.whole(32):
        nats += float(forward(model, batch))
        targets += int(batch.loss_weights.sum())
        size += int(token_bytes[batch.targets[batch.loss_weights > 0]].sum())
    return {
        "eval/loss": nats / targets,
        "eval/bpb": nats / size / math.log(2),
        "eval/targets": targets,
        "eval/bytes": size,
    }


def sources() -> dict[str, str]:
    """sha256 of each file that the run follows from, as tools/speedrun counts them."""
    paths = {path.relative_to(HERE): path for path in sorted(HERE.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in name.parts)
        and name.as_posix() not in ("README.md", "BUILD", "record.json")
    }


def hardware() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device = jax.devices()[0]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "accelerator": None if device.platform == "cpu" else device.device_kind,
        "accelerators": 0 if device.platform == "cpu" else jax.device_count(),
    }


def git_state() -> dict[str, Any]:
    def git(*args: str) -> str:
        command = ["git", *args]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "-s", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def run_record(cfg: Config, store: Path, seed: int, cpu_seconds: float) -> dict[str, Any]:
    """run.json as docs/reference/run.md has it, and what a speedrun adds."""
    digests = sources()
    lock = HERE.parents[2] / "tools/locks/cpu.lock"
    versions = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    attempt = {
        "from_step": 0,
        "sources_digest": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        "git": git_state(),
        "command": sys.argv[1:],
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "count": jax.device_count(),
            "processes": 1,
        },
        "versions": {"python": platform.python_version(), **dict(sorted(versions.items()))},
    }
    return {
        "schema_version": 1,
        "variant": HERE.name,
        "config": {"seed": seed, **dataclasses.asdict(cfg)},
        "data": json.loads((store / "manifest.json").read_text()),
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "sources": digests,
        "attempts": [attempt],
        "speedrun": {"track": TRACK, "hardware": hardware(), "cpu_seconds": cpu_seconds},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=f"One seed of a speedrun of {TRACK}.")
    parser.add_argument("--data", type=Path, required=True, help="the track's token store")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order of the data")
    parser.add_argument("--out", type=Path, required=True, help="an empty directory for the run")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        sys.exit(f"{options.out}: is not empty: give another --out")
    if not (options.data / "manifest.json").is_file():
        sys.exit(f"{options.data}: is no token store: ./pants run corpus -- default makes it")
    options.out.mkdir(parents=True, exist_ok=True)
    cfg = Config()
    model, rows, cpu_seconds = train(cfg, options.data, options.seed)
    rows[-1] |= evaluate(cfg, options.data, model)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (options.out / "metrics.jsonl").write_text(text)
    record = run_record(cfg, options.data, options.seed, cpu_seconds)
    (options.out / "run.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    seconds = sum(row["throughput/step_time"] for row in rows)
    bpb = rows[-1]["eval/bpb"]
    print(
        f"seed {options.seed}: {bpb:.4f} bits per byte, {seconds:.1f} s ({cpu_seconds:.1f} s CPU)"
    )


if __name__ == "__main__":
    main()
