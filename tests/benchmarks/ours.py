"""The template's own training step; it also writes the job that its peers get."""

import dataclasses
from typing import Any

import equinox
import jax
import numpy as np
import optax

from experiments.grug.base.data import Batch
from experiments.grug.base.launch import PRESETS
from experiments.grug.base.packing import to_devices
from experiments.grug.base.train import (
    TrainConfig,
    TrainState,
    make_mesh,
    make_optimizer,
    make_schedule,
    make_train_step,
)
from tests.benchmarks.worker import Job, Step, serve

BATCHES = 8
MEAN_DOCUMENT = 100  # tokens: two or three documents a row


def benchmark_config() -> TrainConfig:
    """The tiny preset, with numbers in the update that cost nothing and that the check can see.

    There is no warmup, so that the first update counts; decay and z-loss are large enough to move
    the losses within a few steps.
    """
    tiny = PRESETS["tiny"]
    model = dataclasses.replace(tiny.model, compute_dtype="float32")
    return dataclasses.replace(tiny, model=model, warmup_steps=0, weight_decay=1.0, z_loss=1e-2)


def random_batches(cfg: TrainConfig) -> list[Batch]:
    """Random tokens in rows of packed documents, with padding at the end of some rows.

    Low ids are more frequent, so that there is something to learn and the losses move.
    """
    draw = np.random.default_rng(cfg.seed)
    shape = (cfg.batch_size, cfg.sequence_length)
    batches = []
    for _ in range(BATCHES):
        tokens = cfg.model.vocab_size * draw.random((shape[0], shape[1] + 1)) ** 4
        tokens = tokens.astype(np.int32)
        segment_ids, positions = np.zeros((2, *shape), np.int32)
        for row in range(shape[0]):
            at, segment = 0, 1
            while at < shape[1] - 8:  # less than that stays padding
                length = min(1 + int(draw.exponential(MEAN_DOCUMENT)), shape[1] - at)
                segment_ids[row, at : at + length] = segment
                positions[row, at : at + length] = np.arange(length)
                at, segment = at + length, segment + 1
        weights = (segment_ids > 0).astype(np.float32)
        arrays: list[Any] = [tokens[:, :-1], tokens[:, 1:], segment_ids, positions, weights]
        batches.append(Batch(*arrays))
    return batches


def write_job(job: Job, cfg: TrainConfig, state: TrainState, batches: list[Batch]) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(state.model)
    weights = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }
    stacked = {name: np.stack([getattr(b, name) for b in batches]) for name in Batch._fields}
    job.write(dataclasses.asdict(cfg), weights, stacked)


def build(job: Job) -> Step:
    cfg = benchmark_config()
    jax.set_mesh(make_mesh(cfg))
    optimizer, schedule = make_optimizer(cfg), make_schedule(cfg)
    train_step = make_train_step(
        optimizer,
        schedule,
        microbatches=cfg.microbatches,
        z_loss=cfg.z_loss,
        ema_decay=cfg.ema_decay,
    )
    state = jax.jit(lambda: TrainState.init(cfg, optimizer))()
    host_batches = random_batches(cfg)
    write_job(job, cfg, state, host_batches)
    batches = [to_devices(batch) for batch in host_batches]

    def step(index: int) -> tuple[jax.Array, jax.Array]:
        nonlocal state
        state, metrics = train_step(state, batches[index % len(batches)])
        return metrics["train/loss"], metrics["train/grad_norm"]

    return step


if __name__ == "__main__":
    packages = (jax, equinox, optax)
    serve(build, {package.__name__: package.__version__ for package in packages})
