"""The training loop: one pure, jitted, donated step, and the story of a run around it.

Read top to bottom: config, optimizer, state, step, evaluation, loop.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from .model import BATCH, MESH_AXES, ModelConfig, Transformer
from .muon import orthogonal_updates
from .plumbing.branch import branch_point, open_branch
from .plumbing.checkpoint import Checkpoints
from .plumbing.data import Batch, TokenStore
from .plumbing.listeners import import_wandb
from .plumbing.packing import PackedRows, every_row, loader, to_devices
from .plumbing.processes import mesh_of
from .plumbing.profile import Profile, named, steps_of
from .plumbing.ranges import (
    Count,
    CountOrZero,
    Decay,
    NonNegative,
    Positive,
    Seed,
    Share,
    check_ranges,
)
from .plumbing.record import read_metrics, write_record
from .plumbing.rundir import open_run
from .plumbing.runlog import RunLog, StepMeter
from .plumbing.signals import Preempted, StopSignal
from .plumbing.watch import Watch, make_norms
from .routing import Routing, routing_metrics


class TrainError(Exception):
    """The run cannot start or go on; the message says why and what to do."""


def role(name: Literal["place", "cadence", "measure", "replicate", "horizon"], default: Any) -> Any:
    """A config field with a role, listed in run.json. All other fields define what is computed.

    place: where a run reads and writes, and where it logs. A resumed run may change it.
    cadence: how often it evaluates and saves, and its layout over devices. A resumed run may change
        it.
    measure: what an evaluation reads. A resumed run may change it, but its evaluations then do not
        compare with earlier ones.
    replicate: what differs between runs of one experiment.
    horizon: the last step, and the learning rate at each. Only a branch may change it.
    """
    return dataclasses.field(default=default, metadata={"role": name})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on. A run's numbers follow from this, the sources and the data.

    Raises:
        ValueError: values that do not fit together; the message says what to change.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: str = role("place", "")
    """Token store: a path, or a gs:// or s3:// URL."""
    run_dir: str = role("place", "")
    """Directory for metrics, checkpoints and the record; by default the next runs/VARIANT-N."""
    resume: bool = role("place", False)
    """Continue from the newest checkpoint in --run-dir, by default the newest; or start there."""
    branch_from: str = role("place", "")
    """RUN@STEP: begin a new run with that checkpoint of another one, by default its newest."""
    seed: Seed = role("replicate", 0)
    """Seed for initialization and data order."""
    steps: Count = role("horizon", 1200)
    """Optimizer updates."""
    batch_size: Count = 8
    """Rows per update, over all devices and microbatches."""
    sequence_length: Count = 256
    """Positions per row."""
    microbatches: Count = 1
    """Parts of the batch, computed one after another: less memory, the same update."""
    learning_rate: Positive = role("horizon", 1e-2)
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd"] = role("horizon", "cosine")
    """Shape after warmup: a cosine to zero, or the peak until a linear decay at the end (WSD)."""
    warmup_steps: CountOrZero = role("horizon", 20)
    """Updates of linear warmup, of half of a run at most."""
    decay_fraction: Share = role("horizon", 0.3)
    """Final share of the updates, in which the wsd schedule decays."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay; GROUPS says on which weights."""
    beta1: Decay = 0.9
    """Decay of AdamW's first moment."""
    beta2: Decay = 0.95
    """Decay of AdamW's second moment."""
    muon_momentum: Decay = 0.95
    """Decay of Muon's momentum."""
    grad_clip: Positive = 1.0
    """Largest global gradient norm; a larger gradient is scaled down to it."""
    skip_above: NonNegative = 0.0
    """Skip updates whose gradient norm is above so many running medians or not finite; 0: none."""
    z_loss: NonNegative = 1e-4
    """Weight of the z-loss, the squared log of the softmax normalizer, in the loss."""
    ema_decay: Decay = 0.0
    """Decay of the running average of the weights, which is evaluated too; 0 keeps none."""
    eval_every: CountOrZero = role("cadence", 400)
    """Steps between evaluations; the last step is always evaluated. 0: only the last."""
    eval_tokens: CountOrZero = role("measure", 65_536)
    """Held-out targets per evaluation, always the same ones; 0 takes all there are."""
    checkpoint_every: Count = role("cadence", 200)
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: Count = role("cadence", 2)
    """Number of newest checkpoints to keep."""
    mesh: tuple[int, int, int, int] = role("cadence", (1, -1, 1, 1))
    """Devices along (replica, data, expert, model); one -1 takes all that are left."""
    context: Count = role("cadence", 1)
    """Devices along `context`, which share the positions of each row."""
    tensorboard: bool = role("place", True)
    """Write TensorBoard events into --run-dir."""
    wandb: bool = role("place", False)
    """Log to Weights & Biases; the package wandb must be installed."""
    watch_every: CountOrZero = role("cadence", 0)
    """Steps between norms of each layer, written beside the metrics; 0: none."""
    profile: str = role("place", "")
    """START:STEPS: write a trace of so many steps, from step START on, into --run-dir."""

    def __post_init__(self):
        check_ranges(self)
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of "
                f"microbatches={self.microbatches}"
            )
        default = type(self).decay_fraction
        if self.schedule != "wsd" and self.decay_fraction != default:
            raise ValueError(
                f"decay_fraction={self.decay_fraction} changes nothing: add --schedule wsd, or "
                f"leave it at {default}"
            )
        step = branch_point(self.branch_from)[1]
        if step is not None and step >= self.steps:
            raise ValueError(f"steps={self.steps}: a branch from step {step} needs more --steps")
        steps_of(self.profile, self.steps)

    @classmethod
    def roles(cls) -> dict[str, str]:
        """`{field: role}` for the fields that have a role."""
        fields = dataclasses.fields(cls)
        return {f.name: f.metadata["role"] for f in fields if "role" in f.metadata}

    @classmethod
    def horizon(cls) -> list[str]:
        """The fields that a branch may change."""
        return [name for name, role in cls.roles().items() if role == "horizon"]

    def identity(self, store: TokenStore) -> dict[str, Any]:
        """What a checkpoint must share with a run that resumes it: fields and the data's digest."""
        fixed = ("replicate", "horizon")
        changeable = {name for name, role in self.roles().items() if role not in fixed}
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in changeable}
        model = {f"model.{k}": v for k, v in fields.pop("model").items()}
        return {**fields, **model, "data_digest": store.manifest["digest"]}


def mesh_shape(cfg: TrainConfig, devices: int) -> tuple[int, ...]:
    """Devices along MESH_AXES. Raises ValueError if the run cannot be split that way."""
    fixed = math.prod(n for n in cfg.mesh if n != -1) * cfg.context
    if cfg.mesh.count(-1) > 1 or fixed < 1:
        raise ValueError(f"mesh={cfg.mesh}: sizes are at least 1, and one of them may be -1")
    *outer, model = (max(1, devices // fixed) if n == -1 else n for n in cfg.mesh)
    shape = (*outer, cfg.context, model)
    axes = dict(zip(MESH_AXES, shape, strict=True))
    rows = cfg.batch_size // cfg.microbatches
    sizes = [("batch_size / microbatches", rows, math.prod(axes[axis] for axis in BATCH))]
    sizes.append(("sequence_length", cfg.sequence_length, cfg.context))
    for name, split in cfg.model.SPLIT.items():
        parts = math.prod(axes[axis] for axis in split)
        sizes.append((f"model.{name}", getattr(cfg.model, name), parts))
    for name, size, parts in sizes:
        if size % parts:
            raise ValueError(
                f"{name}={size} cannot be split over {parts} devices: change it, mesh or "
                f"context, which give {axes}"
            )
    return shape


def make_mesh(cfg: TrainConfig, devices: Sequence[Any] = ()) -> jax.sharding.Mesh:
    """A mesh of all devices. Raises ValueError when the config does not take them all."""
    devices = devices or jax.devices()
    shape = mesh_shape(cfg, len(devices))
    if math.prod(shape) != len(devices):
        raise ValueError(
            f"mesh={cfg.mesh} and context={cfg.context} take {math.prod(shape)} of the "
            f"{len(devices)} devices"
        )
    return mesh_of(shape, MESH_AXES, devices)


def make_schedule(cfg: TrainConfig) -> optax.Schedule:
    """Learning rate by the number of updates made: warmup, then a cosine or a linear decay (WSD).

    Update n of the w in the warmup, from 1, has n / w of the peak. The decay would reach zero with
    one more update: the last one, of n in the decay, has (1 + cos(pi (n - 1) / n)) / 2 of the peak,
    or 1 / n. Warmup and decay do not overlap: warmup takes half of the run at most, and the decay
    what it asks for of the rest.
    """
    warmup, peak = min(cfg.warmup_steps, cfg.steps // 2), cfg.learning_rate
    rise = optax.linear_schedule(peak / max(warmup, 1), peak, warmup - 1)
    if cfg.schedule == "cosine":
        fall = optax.cosine_decay_schedule(peak, cfg.steps - warmup)
        return optax.join_schedules([rise, fall], [warmup])
    decay = min(max(1, round(cfg.decay_fraction * cfg.steps)), cfg.steps - warmup)
    stay = optax.constant_schedule(peak)
    fall = optax.linear_schedule(peak, 0.0, decay)
    return optax.join_schedules([rise, stay, fall], [warmup, cfg.steps - decay])


def other_schedule(cfg: TrainConfig, horizon: dict[str, Any]) -> optax.Schedule:
    """The schedule under another horizon, that of a branch's parent."""
    return make_schedule(dataclasses.replace(cfg, branch_from="", **horizon))


@dataclasses.dataclass(frozen=True)
class Group:
    """How the optimizer treats the weights of a group."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW (arXiv:1711.05101), or Muon with AdamW's decay and size of updates."""
    rate: float = 1.0
    """Factor on the learning rate, and so on the decay of a step."""
    decay: float = 1.0
    """Factor on the weight decay."""


GROUPS = {
    "embedding": Group(),
    "head": Group(),
    "matrix": Group("muon"),
    "router": Group(),  # its logits decide: AdamW, as for the head
    "vector": Group(decay=0.0),
}


def group_of(path: tuple[Any, ...], weight: Float[Array, "..."]) -> str:
    """The group of a weight, by its name and its shape in one layer.

    Raises:
        ValueError: no rule names it.
    """
    names = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    dimensions = weight.ndim - is_stacked(path)
    if names[-1] in ("embed", "head"):
        return "embedding" if names[-1] == "embed" else "head"
    if dimensions <= 1:
        return "vector"  # scales, biases, gains: one number per channel, head or layer
    if names[-1].startswith("w_"):
        return "router" if names[-1] == "w_router" else "matrix"
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    raise ValueError(
        f"{name} of shape {weight.shape} is in no group of GROUPS: name a matrix w_..., or give "
        "group_of in train.py a rule for it"
    )


def is_stacked(path: tuple[Any, ...]) -> bool:
    """Whether a weight is one of a block, stacked over layers."""
    return path[0] == jax.tree_util.GetAttrKey("blocks")


def make_optimizer(cfg: TrainConfig) -> optax.GradientTransformation:
    """Global-norm clipping, then each group's optimizer."""
    schedule = make_schedule(cfg)

    optimizers = {
        "adamw": optax.scale_by_adam(cfg.beta1, cfg.beta2),
        "muon": scale_by_muon(cfg.muon_momentum, cfg.model.compute_dtype),
    }

    def of_group(group: Group) -> optax.GradientTransformation:
        parts = optax.chain(
            optimizers[group.optimizer],
            optax.add_decayed_weights(group.decay * cfg.weight_decay),
            optax.scale_by_learning_rate(lambda step: group.rate * schedule(step)),
        )
        return named(group.optimizer, parts)

    groups = {name: of_group(group) for name, group in GROUPS.items()}
    return optax.chain(
        named("clip", optax.clip_by_global_norm(cfg.grad_clip)),
        optax.partition(groups, partial(jax.tree.map_with_path, group_of)),
    )


def scale_by_muon(momentum: float, dtype: str) -> optax.GradientTransformation:
    """Muon (kellerjordan.github.io/posts/muon): Nesterov momentum, made orthogonal by matrix."""
    trace = optax.trace(momentum, nesterov=True)

    def orthogonal(path: tuple[Any, ...], update: Array) -> Array:
        if is_stacked(path):
            return orthogonal_updates(update, dtype)
        return orthogonal_updates(update[None], dtype)[0]

    def update(grads: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        updates, state = trace.update(grads, state, params)
        return jax.tree.map_with_path(orthogonal, updates), state

    return optax.GradientTransformation(trace.init, update)


class TrainState(eqx.Module):
    """All that changes from step to step. A checkpoint holds this and the loader's position."""

    step: Int[Array, ""]
    model: Transformer
    optimizer: optax.OptState
    ema: Transformer | None
    norms: Float[Array, "128"] | None
    """Gradient norms of the last steps, the newest last, where cfg.skip_above is set."""
    rng: Int[Array, "2"]
    """Raw key for variants whose step draws numbers; base draws none."""

    @staticmethod
    def init(cfg: TrainConfig, optimizer: optax.GradientTransformation) -> "TrainState":
        init_key, rng = jax.random.split(jax.random.PRNGKey(cfg.seed))
        model = Transformer.init(cfg.model, key=init_key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            model=model,
            optimizer=optimizer.init(model),
            ema=jax.tree.map(jnp.copy, model) if cfg.ema_decay else None,
            norms=jnp.full(128, jnp.finfo(jnp.float32).max) if cfg.skip_above else None,
            rng=rng,
        )


def loss_sums(model: Transformer, batch: Batch, z_loss: float) -> tuple[Array, Array]:
    """Sums over the batch's real targets of (loss, cross-entropy), in nats."""
    return loss_sums_and_routing(model, batch, z_loss)[:2]


def loss_sums_and_routing(
    model: Transformer, batch: Batch, z_loss: float
) -> tuple[Array, Array, Routing]:
    """`loss_sums`, the first with the routers' z-loss, and what the routers did."""
    hidden, routing = model.hidden_and_routing(batch.tokens, batch.segment_ids, batch.positions)
    loss, cross_entropy = model.loss_sums(hidden, batch.targets, batch.loss_weights, z_loss)
    return loss + model.cfg.router_z * jnp.sum(routing.z), cross_entropy, routing


Metrics = dict[str, Float[Array, ""]]


def make_train_step(
    cfg: TrainConfig, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """(state, batch) -> (next state, metrics): one update as a pure function; `state` is donated.

    The loss is a mean over the whole batch's real targets, so that the number of microbatches
    changes nothing but rounding.
    """
    schedule = make_schedule(cfg)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        count = jnp.maximum(jnp.sum(batch.loss_weights), 1.0)

        def mean_loss(model: Transformer, part: Batch) -> tuple[Array, tuple[Array, Routing]]:
            loss, cross_entropy, routing = loss_sums_and_routing(model, part, cfg.z_loss)
            return loss / count, (cross_entropy / count, routing)

        gradient = jax.value_and_grad(mean_loss, has_aux=True)
        if cfg.microbatches == 1:
            (_, (loss, routing)), grads = gradient(state.model, batch)
        else:

            def accumulate(carry: Any, part: Batch) -> tuple[Any, Routing]:
                (_, (loss, routing)), grads = gradient(state.model, part)
                return jax.tree.map(jnp.add, carry, (loss, grads)), routing

            zeros = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, state.model))
            parts = split_rows(batch, cfg.microbatches)
            (loss, grads), routings = jax.lax.scan(accumulate, zeros, parts)
            routing = jax.tree.map(lambda x: jnp.sum(x, axis=0), routings)
        with jax.named_scope("optimizer"):
            norm = optax.tree.norm(grads)
            updates, opt_state = optimizer.update(grads, state.optimizer, state.model)
            model = optax.apply_updates(state.model, updates).balanced(routing.load)
        # A short average at first, so that the random start is soon forgotten: at step t, from 0,
        # the decay is (1 + t) / (10 + t) at most.
        decay = jnp.minimum(cfg.ema_decay, (1 + state.step) / (10 + state.step))
        ema = optax.incremental_update(model, state.ema, 1 - decay) if state.ema else None
        metrics = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "optim/learning_rate": jnp.asarray(schedule(state.step)),
            **routing_metrics(routing, model.cfg.top_k),
        }
        after = TrainState(state.step + 1, model, opt_state, ema, state.norms, state.rng)
        if cfg.skip_above:
            after, metrics["train/skipped"] = without_spike(state, after, norm, cfg.skip_above)
        return after, metrics

    return jax.jit(step, donate_argnums=0)


def without_spike(
    before: TrainState, after: TrainState, norm: Float[Array, ""], skip_above: float
) -> tuple[TrainState, Float[Array, ""]]:
    """The state after an update, and 1 if its gradient is a spike, whose update is not made.

    A spike's norm is not finite, or above `skip_above` times the median of the steps before; of
    these, at least 64 are needed. Counters go on, so that the schedule does (the idea: OLMo 2,
    arXiv:2501.00656, section 3.1.3).
    """
    assert before.norms is not None
    is_finite = jnp.isfinite(norm)
    skipped = ~is_finite | (norm > skip_above * jnp.median(before.norms))

    def choose(old: Array, new: Array) -> Array:
        return jnp.where(skipped, old, new) if jnp.issubdtype(new.dtype, jnp.floating) else new

    norms = jnp.append(before.norms[1:], jnp.where(is_finite, norm, before.norms[-1]))
    kept = jax.tree.map(choose, before, after)
    return dataclasses.replace(kept, norms=norms), skipped.astype(jnp.float32)


def split_rows(batch: Batch, parts: int) -> Batch:
    """(B, S) -> (parts, B / parts, S), every device keeping its own rows."""

    def split(x: Array) -> Array:
        by_row = P(BATCH, *[None] * x.ndim)
        shape = (x.shape[0] // parts, parts, *x.shape[1:])
        return jnp.moveaxis(jnp.reshape(x, shape, out_sharding=by_row), 1, 0)

    return Batch(*map(split, batch))


class Evaluator:
    """Held-out loss (nats per token) and bits per byte, over the same targets every time.

    The targets do not depend on the mesh, the batch, the microbatches or the sequence length. An
    evaluation takes the rows of one microbatch at a time, and so no more memory than a step.
    """

    def __init__(self, store: TokenStore, cfg: TrainConfig):
        self.rows = PackedRows(store, "heldout", cfg.sequence_length, targets=cfg.eval_tokens)
        self.batches = every_row(self.rows, cfg.batch_size // cfg.microbatches, BATCH)
        self.token_bytes = jax.device_put(store.token_bytes(), P(None))
        self.sums = make_eval_step()

    @partial(jax.profiler.annotate_function, name="run/evaluation")
    def __call__(self, state: TrainState) -> dict[str, float]:
        """`eval/loss` and `eval/bpb`, and what they are over: `eval/targets`, of which `eval/ends`
        are ends of documents, and `eval/bytes`.

        With an EMA in the state, the first two also under `eval/ema/`.
        """
        metrics = {}
        for prefix, model in (("eval/", state.model), ("eval/ema/", state.ema)):
            if model:
                parts = []
                for batch in self.batches:
                    parts.append(self.sums(model, to_devices(batch, BATCH), self.token_bytes))
                    parts[-2:][0].block_until_ready()  # two batches at most wait on the devices
                sums = np.sum([np.asarray(part, np.float64) for part in parts], axis=0)
                nats, targets, byte_count = sums[0], sums[1], self.rows.text_bytes or sums[2]
                metrics |= {
                    f"{prefix}loss": nats / targets,
                    f"{prefix}bpb": nats / byte_count / math.log(2),
                }
                ends = float(self.rows.is_end.sum())
                metrics |= {"eval/targets": targets, "eval/ends": ends, "eval/bytes": byte_count}
        return metrics


def make_eval_step() -> Callable[[Transformer, Batch, Array], Array]:
    """(model, batch, bytes of each token id) -> sums of (nats, targets, bytes of the targets)."""

    @jax.jit
    @jax.named_scope("evaluation")
    def sums(model: Transformer, batch: Batch, token_bytes: Array) -> Array:
        _, cross_entropy = loss_sums(model, batch, 0.0)
        sizes = token_bytes.at[batch.targets].get(out_sharding=P(BATCH, None))
        weights = batch.loss_weights
        return jnp.stack([cross_entropy, jnp.sum(weights), jnp.sum(weights * sizes)])

    return sums


def restore(
    cfg: TrainConfig, checkpoints: Checkpoints, like: TrainState, identity: dict[str, Any]
) -> tuple[TrainState, dict[str, Any]] | None:
    """The newest checkpoint's state and meta; None if the run ended before its first one.

    Raises:
        TrainError: the run is too long to have no checkpoint.
        CheckpointError: the newest one is damaged or belongs to another configuration.
    """
    newest = checkpoints.latest()
    if newest is None:
        steps_done = len(read_metrics(f"{cfg.run_dir}/metrics.jsonl"))
        if steps_done > 2 * cfg.checkpoint_every:  # the second save waited for the first
            raise TrainError(
                f"{cfg.run_dir} has metrics of {steps_done} steps but no checkpoint: they were "
                "removed, "
                "or none could be saved. Put them back, or start anew in another --run-dir"
            )
        return None
    return checkpoints.restore(newest, like, identity)


def open_store(cfg: TrainConfig) -> TokenStore:
    """The run's token store. Raises TrainError when the model has too few token ids for it."""
    store = TokenStore.open(cfg.data)
    store_size, model_size = store.manifest["vocab_size"], cfg.model.vocab_size
    if store_size > model_size:
        raise TrainError(
            f"{cfg.data} uses {store_size} token ids, the model knows {model_size}: add "
            f"--model.vocab-size {store_size}"
        )
    return store


@contextlib.contextmanager
def last_good(checkpoints: Checkpoints) -> Generator[None]:
    """Turns a non-finite step into a TrainError that names the last good checkpoint."""
    try:
        yield
    except FloatingPointError as error:
        good = checkpoints.last_good()
        raise TrainError(f"{error}; last good checkpoint: {good}") from error


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run: the model to use (the EMA where there is one) and its rows of metrics."""

    model: Transformer
    history: list[dict[str, float]]


def train(cfg: TrainConfig) -> TrainResult:
    """Trains from step 0, the newest checkpoint, or another run's, to cfg.steps on this mesh.

    Raises:
        Preempted: a signal reached a process of the run; what is new is saved.
        TrainError, DataError, CheckpointError: the run cannot start or go on.
    """
    if cfg.wandb and jax.process_index() == 0:
        import_wandb()
    resuming = open_run(cfg.run_dir, resume=cfg.resume)
    branch = open_branch(cfg.run_dir, cfg.branch_from, resuming=resuming)
    cfg = dataclasses.replace(cfg, branch_from=branch.source)
    store = open_store(cfg)
    optimizer = make_optimizer(cfg)
    batches = loader(store, "train", cfg.batch_size, cfg.sequence_length, BATCH, seed=cfg.seed)
    evaluate = Evaluator(store, cfg)
    # It runs once: optimizing it would take seconds longer than running it.
    compiler_options = {"xla_backend_optimization_level": 1}
    init = jax.jit(lambda: TrainState.init(cfg, optimizer), compiler_options=compiler_options)
    train_step = make_train_step(cfg, optimizer)

    checkpoints = Checkpoints(cfg.run_dir, keep=cfg.keep_checkpoints)
    like, identity = jax.eval_shape(init), cfg.identity(store)
    restored = restore(cfg, checkpoints, like, identity) if resuming else None
    if branch.source and not restored:
        restored = branch.begin(like, identity, cfg.horizon(), partial(other_schedule, cfg))
    if restored:
        state, meta = restored
        batches.set_state(meta["data_position"])
    else:
        state = init()
    start = int(state.step)
    config = dataclasses.asdict(cfg)
    if start < cfg.steps:  # who only looks at a finished run is no part of it
        write_record(cfg.run_dir, config, cfg.roles(), store.manifest, start, branch.ancestors)

    listeners = {"tensorboard": cfg.tensorboard, "wandb": cfg.wandb}
    log = RunLog(
        cfg.run_dir, config, start, cfg.steps, epoch=batches.epoch, begin=branch.step, **listeners
    )
    meter = StepMeter(
        tokens_per_step=cfg.batch_size * cfg.sequence_length,
        flops_per_token=cfg.model.flops_per_token(cfg.sequence_length),
    )
    norms_of = make_norms(cfg, make_train_step, optimizer, split_rows)
    watch = Watch(cfg.watch_every, norms_of, meter.skip)
    pending: tuple[int, Metrics, float] | None = None  # the step whose metrics are not read yet
    step, stopped = start, False
    profile = Profile(cfg.run_dir, steps_of(cfg.profile, cfg.steps), start)
    with log, StopSignal() as stop, last_good(checkpoints), profile:
        while step < cfg.steps and not stopped:
            load_start = time.perf_counter()
            batch = to_devices(next(batches), BATCH)
            loading_time = time.perf_counter() - load_start
            step += 1
            norms = watch(step, state, batch)
            with jax.profiler.StepTraceAnnotation("run/step", step_num=step):
                state, metrics = train_step(state, batch)
            stopped = stop.now()
            if pending:  # read one step late: the device computes this step meanwhile
                log.write(meter.row(*pending))
            pending = (step, metrics | norms, loading_time)

            is_last = step == cfg.steps
            eval_due = is_last or (cfg.eval_every > 0 and step % cfg.eval_every == 0)
            save_due = is_last or step % cfg.checkpoint_every == 0 or stopped
            if eval_due or save_due or profile.due(step):
                row, pending = meter.row(*pending), None
                profile.end(step)
                log.write(row | evaluate(state) if eval_due else row)
                if save_due:
                    meta = {"config": identity, "data_position": batches.get_state()}
                    checkpoints.save(step, state, meta, before_commit=log.flush)
                profile.begin(step)
                meter.restart()
            checkpoints.poll()
        checkpoints.wait()
    if step < cfg.steps:
        raise Preempted(step, stop.received or signal.SIGTERM)
    return TrainResult(state.model if state.ema is None else state.ema, log.history)
