"""Command line of this variant: presets, the plan, a run and a look at what it learned.

./pants run launch -- NAME --preset tiny --steps 100
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from .model import BATCH, ModelConfig, Transformer
from .planning.plan import check_flags, plan
from .planning.topology import leave_hardware_alone, platform_of
from .plumbing.checkpoint import CheckpointError
from .plumbing.data import DataError, TokenStore
from .plumbing.kernels import kernel_for
from .plumbing.processes import meet, run
from .plumbing.record import VARIANT, loss_curve
from .plumbing.rundir import claimed
from .plumbing.storage import Outage
from .plumbing.terminal import optional, say, tell
from .train import Preempted, TrainConfig, TrainError, make_mesh, train

Preset = Literal["tiny", "130m", "350m", "1b"]

# Base's presets at the same FLOPs per token: the shared MLP and the chosen experts together are as
# wide as base's MLP. The names are base's too and count active parameters, as planning/rule.py
# does, which gives learning rates, batches and weight decays.
# Held-out targets: as many as github.com/KellerJordan/modded-nanogpt evaluates.
PRESETS: dict[str, TrainConfig] = {
    "tiny": TrainConfig(model=ModelConfig(scan_unroll=4, query_chunk=64)),
    "130m": TrainConfig(
        model=ModelConfig(
            vocab_size=32_768,
            d_model=768,
            n_layers=12,
            n_heads=6,
            n_kv_heads=2,
            head_dim=128,
            d_ff=1024,
            n_experts=32,
            top_k=4,
            d_expert=512,
            loss_chunk=4096,
        ),
        steps=19_200,
        batch_size=64,
        sequence_length=2048,
        learning_rate=3.3e-3,
        warmup_steps=1_000,
        eval_every=1_000,
        eval_tokens=10_485_760,
        checkpoint_every=1_000,
    ),
    "350m": TrainConfig(
        model=ModelConfig(
            vocab_size=32_768,
            d_model=1024,
            n_layers=24,
            n_heads=8,
            n_kv_heads=2,
            head_dim=128,
            d_ff=1024,
            n_experts=32,
            top_k=4,
            d_expert=768,
            loss_chunk=4096,
        ),
        steps=25_300,
        batch_size=128,
        sequence_length=2048,
        learning_rate=1.8e-3,
        warmup_steps=1_200,
        eval_every=1_000,
        eval_tokens=10_485_760,
        checkpoint_every=1_000,
    ),
    "1b": TrainConfig(
        model=ModelConfig(
            vocab_size=32_768,
            d_model=2048,
            n_layers=24,
            n_heads=16,
            n_kv_heads=4,
            head_dim=128,
            d_ff=2048,
            n_experts=32,
            top_k=4,
            d_expert=1536,
            loss_chunk=4096,
        ),
        steps=45_400,
        batch_size=128,
        sequence_length=4096,
        microbatches=2,
        learning_rate=1e-3,
        warmup_steps=2_000,
        eval_every=1_000,
        eval_tokens=10_485_760,
        checkpoint_every=1_000,
    ),
}


@dataclasses.dataclass(frozen=True)
class Command:
    """Train this variant. Every field of the preset can be overridden."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    preset: Preset = "tiny"
    """Preset that supplies the defaults."""
    plan: bool = False
    """Print sizes, FLOPs, memory and shardings, and stop; nothing is allocated or read."""
    json: bool = False
    """Print the plan as one JSON object."""
    topology: str = ""
    """Hardware that --plan compiles for, present or not: v5e:4x4, 2xv6e:4x4, 8xh100, 2x8xh100."""
    price: float = 0.0
    """Dollars per hour of one device of --topology: --plan tells what the run costs at least."""

    def __post_init__(self) -> None:
        check_flags(self.plan, self.json, self.topology, self.price)


def parse(argv: Sequence[str]) -> Command:
    """Reads the command line; tyro ends the process on --help (0) and on bad values (2)."""
    preset = chosen_preset(argv)
    default = Command(train=PRESETS[preset], preset=preset)
    try:
        command = tyro.cli(Command, args=argv, default=default, prog=f"launch {VARIANT}")
    except ValueError as error:  # of the config itself, which tyro does not catch
        tell(f"{VARIANT}: {error}")
        raise SystemExit(2) from error
    if not command.plan:
        meet()  # what follows asks for the devices of all processes
    return dataclasses.replace(command, train=resolve(command.train, command.topology))


def chosen_preset(argv: Sequence[str]) -> Preset:
    """The last valid --preset of the command line, which supplies the defaults that tyro shows."""
    chosen: Preset = "tiny"
    for flag, following in pairwise([*argv, ""]):
        name, _, value = flag.partition("=")
        for preset in get_args(Preset):
            if name == "--preset" and preset == (value or following):
                chosen = preset
    return chosen


def resolve(cfg: TrainConfig, topology: str = "") -> TrainConfig:
    """Fills in what depends on the machine (each `auto`), so that run.json has it.

    Raises:
        ValueError: the machine cannot run what the config asks for.
    """
    model, platform = cfg.model, platform_of(topology) if topology else jax.default_backend()
    if model.compute_dtype == "auto":
        # A CPU has no bfloat16 matrix units that XLA uses: float32 is as fast and exact.
        dtype = "float32" if platform == "cpu" else "bfloat16"
        model = dataclasses.replace(model, compute_dtype=dtype)
    model = dataclasses.replace(model, attention=kernel_for(model.attention, platform))
    return dataclasses.replace(cfg, model=model)


def make_sampler(cfg: TrainConfig) -> tuple[Callable[..., Array], tuple[int, int]]:
    """A sampler under the current mesh, and the shape of its token ids.

    (model, token ids, length of the prompt) -> token ids, all after the prompt drawn with a fixed
    key. Runs the whole window for every token: enough to look at a model, too slow to serve one.
    """
    mesh, temperature = jax.sharding.get_mesh().shape, 0.7
    rows = math.prod(mesh[axis] for axis in BATCH)  # every shard needs a row
    parts = mesh["context"]  # of 128 positions each, as the splash kernel takes them
    window = min(128 * parts if parts > 1 else 208, cfg.sequence_length)
    by_row = P(BATCH, None)

    def grow(
        model: Transformer, tokens: Int[Array, "rows window"], prompt_length: Int[Array, ""]
    ) -> Int[Array, "rows window"]:
        key = jax.random.PRNGKey(0)
        positions = jnp.broadcast_to(jnp.arange(window)[None], tokens.shape, out_sharding=by_row)

        def append_token(
            index: Int[Array, ""], tokens: Int[Array, "rows window"]
        ) -> Int[Array, "rows window"]:
            hidden = model(tokens, jnp.ones_like(positions), positions)
            whole = jax.reshard(hidden, P(BATCH, None, None))
            last = jax.lax.dynamic_slice_in_dim(whole, index - 1, 1, axis=1)
            logits = jax.reshard(model.logits(last), P(None, None, None))[0, 0] / temperature
            token = jax.random.categorical(jax.random.fold_in(key, index), logits)
            return jnp.where(jnp.arange(window)[None] == index, token, tokens)

        tokens = jax.lax.fori_loop(prompt_length, window, append_token, tokens)
        return jax.reshard(tokens, P(None, None))

    return jax.jit(grow), (rows, window)


def sample(model: Transformer, prompt: list[int], cfg: TrainConfig) -> list[int]:
    """Token ids with which the model continues a prompt."""
    sampler, shape = make_sampler(cfg)
    tokens = np.zeros(shape, np.int32)
    tokens[:, : len(prompt)] = prompt
    grown = sampler(model, jax.device_put(tokens, P(BATCH, None)), len(prompt))
    return np.asarray(grown)[0, len(prompt) :].tolist()


def continuation(model: Transformer, cfg: TrainConfig) -> str:
    """The beginning of a held-out document, and how the model continues it."""
    store = TokenStore.open(cfg.data)
    end = int(store.array("heldout/offsets")[1].read().result())
    prompt_length = min(end, 48, cfg.sequence_length // 2)
    prompt = store.array("heldout/tokens")[:prompt_length].read().result().tolist()
    tokenizer = store.tokenizer()
    learned, document = sample(model, prompt, cfg), store.document_token
    is_ended = document in learned
    if is_ended:
        learned = learned[: learned.index(document)]
    beginning = f"--- held-out prompt ---\n{tokenizer.decode(prompt)}"
    end = "--- the model ends the document ---" if is_ended else "---"
    return f"{beginning}\n--- the model goes on ---\n{tokenizer.decode(learned)}\n{end}"


def show(model: Transformer, cfg: TrainConfig, history: list[dict[str, float]]) -> None:
    """Prints a finished run's loss curve, a sample of its model, and its held-out results."""
    # A model still in warmup has nothing to say.
    text = continuation(model, cfg) if cfg.steps > cfg.warmup_steps else ""
    if jax.process_index() > 0:
        return  # all processes compute the sample, one prints it
    say(f"\ntraining loss, nats per token\n{loss_curve(history)}\n{text}")
    best = history[-1]
    for name in ("eval/bpb", "eval/ema/bpb"):
        if name in best:
            say(f"{name}: {best[name]:.3f} bits per byte on held-out documents")
    say(f"run: {cfg.run_dir}")


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the run cannot go on, 2 bad command line; docs/reference/run.md."""
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        cfg = command.train
        if command.plan:
            told = plan(cfg, command.topology, make_sampler, command.price, as_json=command.json)
            return 1 - all(map(say, told))
        if not cfg.data:
            raise DataError(
                "--data names no token store; make one with ./pants run corpus -- build "
                "TEXT --out STORE, or let ./pants run launch prepare the default"
            )
        with (
            jax.set_mesh(make_mesh(cfg)),
            claimed(cfg.run_dir, resume=cfg.resume) as run_dir,
        ):
            cfg = dataclasses.replace(cfg, run_dir=run_dir)
            if jax.process_index() == 0:
                say(f"{VARIANT} {command.preset}: {cfg.steps} steps, run in {run_dir}")
            result = train(cfg)
            with optional("the closing show"):  # the run is done, whatever becomes of this
                show(result.model, cfg, result.history)
        return 0
    except Preempted as stop:
        tell(f"{VARIANT}: {stop}; --run-dir {cfg.run_dir} --resume goes on")
        return stop.exit_code
    except Outage as error:
        tell(f"{VARIANT}: {error}; --resume goes on after that")
        return error.EXIT_CODE
    except (TrainError, DataError, CheckpointError, ValueError) as error:
        tell(f"{VARIANT}: {error}")
        return 1


if __name__ == "__main__":
    leave_hardware_alone(sys.argv)
    run(main)
