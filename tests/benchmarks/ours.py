"""The template's own training step; it also writes the job that its peers get.

python -m tests.benchmarks.ours JOB --preset tiny --template --model.remat-layers 2

docs/benchmarks.md tells what is the same.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any
from unittest import mock

import equinox
import jax
import numpy as np
import optax

from tests.benchmarks.worker import Job, peak_bytes, serve

BATCHES = 8
MEAN_DOCUMENT = 100  # tokens: two or three documents a row
# A variant's modules; alike in all that is used here, and typed by none of them.
MODULES = {
    "base": (
        "experiments.grug.base.launch",
        "experiments.grug.base.train",
        "experiments.grug.base.plumbing.packing",
        "experiments.grug.base.plumbing.cluster",
    ),
    "moe": (
        "experiments.grug.moe.launch",
        "experiments.grug.moe.train",
        "experiments.grug.moe.plumbing.packing",
        "experiments.grug.moe.plumbing.cluster",
    ),
}
# Sizes between the presets tiny and 130m, of 26 million weights.
SIZES_25M = {
    "d_model": 512,
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 2,
    "d_ff": 2048,
    "scan_unroll": 8,
}


def benchmark_config(presets: dict[str, Any], name: str, dtype: str) -> Any:
    """A preset, with numbers in the update that cost nothing and that the check can see.

    There is no warmup, so that the first update counts; decay and z-loss are large enough to move
    the losses within a few steps. Microbatches, which the peers lack, are for larger batches.
    """
    preset = presets["tiny" if name == "25m" else name]
    sizes = SIZES_25M if name == "25m" else {}
    model = dataclasses.replace(preset.model, compute_dtype=dtype, **sizes)
    changed = {"warmup_steps": 0, "weight_decay": 1.0, "z_loss": 1e-2, "microbatches": 1}
    return dataclasses.replace(preset, model=model, **changed)


def random_batches(cfg: Any, *, whole: bool) -> list[dict[str, np.ndarray]]:
    """Random tokens in rows of packed documents, with padding at the end of some rows.

    Low ids are more frequent, so that there is something to learn and the losses move. A row is a
    document of its own where they are to be `whole`.
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
                drawn = shape[1] if whole else 1 + int(draw.exponential(MEAN_DOCUMENT))
                length = min(drawn, shape[1] - at)
                segment_ids[row, at : at + length] = segment
                positions[row, at : at + length] = np.arange(length)
                at, segment = at + length, segment + 1
        batches.append(
            {
                "tokens": tokens[:, :-1],
                "targets": tokens[:, 1:],
                "segment_ids": segment_ids,
                "positions": positions,
                "loss_weights": (segment_ids > 0).astype(np.float32),
            }
        )
    return batches


def write_job(job: Job, cfg: Any, model: Any, batches: list[dict[str, np.ndarray]] | None) -> None:
    """The config, and what peers need, the weights and batches, where there are `batches`."""
    config = dataclasses.asdict(cfg)
    config["flops_per_token"] = cfg.model.flops_per_token(cfg.sequence_length)
    if batches is None:
        return job.write(config)
    leaves = jax.tree.leaves_with_path(model)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    # Base repeats after one layer: the first of its kinds of layers is all of them.
    weights = {k.replace("blocks.0.", "blocks."): np.asarray(leaf) for k, leaf in named.items()}
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    job.write(config, weights=weights, batches=stacked)


def adamw_alone(train: Any, cfg: Any) -> optax.GradientTransformation:
    """A variant's optimizer, but AdamW for all weights, as its peers have it."""
    groups = {k: dataclasses.replace(group, optimizer="adamw") for k, group in train.GROUPS.items()}
    with mock.patch.object(train, "GROUPS", groups):
        return train.make_optimizer(cfg)


def chosen(launch: Any, preset: str, words: Sequence[str]) -> Any:
    """The config of a variant's own command line. Ends this process, in one line, if it refuses."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return launch.parse(["--preset", preset, *words]).train
    except ValueError as error:
        sys.exit(f"refused: {error}")
    except SystemExit:  # it has drawn a box around its words
        text = re.sub(r"[\s\u2500-\u257f-]{2,}", " ", said.getvalue())
        sys.exit(f"refused: {text.partition('For full helptext')[0].strip()}")


@dataclasses.dataclass
class Training:
    """A training step, its state and its batches, on the mesh that is set."""

    cfg: Any
    train_step: Any
    state: Any
    batches: list[Any]

    def step(self, index: int) -> tuple[jax.Array, jax.Array]:
        """Trains on a batch; the loss and the gradient's norm."""
        batch = self.batches[index % len(self.batches)]
        self.state, metrics = self.train_step(self.state, batch)
        return metrics["train/loss"], metrics["train/grad_norm"]


def training(flags: argparse.Namespace, job: Job | None) -> Training:
    """What the flags ask for; writes the job, and what peers need with `flags.write`."""
    launch, train, packing, cluster = map(importlib.import_module, MODULES[flags.variant])
    if flags.cluster:
        cluster.join(cluster.detect(os.environ))
    presets = launch.PRESETS
    if flags.template:
        presets = {flags.preset: chosen(launch, flags.preset, flags.template)}
    cfg = benchmark_config(presets, flags.preset, flags.dtype)
    if flags.rows:
        cfg = dataclasses.replace(cfg, batch_size=flags.rows)
    jax.set_mesh(train.make_mesh(cfg))
    optimizer = adamw_alone(train, cfg)
    train_step = train.make_train_step(cfg, optimizer)
    state = jax.jit(lambda: train.TrainState.init(cfg, optimizer))()
    host_batches = random_batches(cfg, whole=flags.whole)
    if job and jax.process_index() == 0:
        write_job(job, cfg, state.model, host_batches if flags.write else None)
    own = packing.local_rows(cfg.batch_size, train.BATCH)
    batches = [
        packing.to_devices(train.Batch(**{k: x[own] for k, x in batch.items()}), train.BATCH)
        for batch in host_batches
    ]
    return Training(cfg, train_step, state, batches)


def peak() -> int:
    """Bytes of an accelerator's own memory, else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or peak_bytes()


def flags_of_training() -> argparse.ArgumentParser:
    """A parser with the flags that `training` reads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=MODULES, default="base")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=0, help="rows of a batch; 0: the preset's")
    parser.add_argument("--whole", action="store_true", help="a row is one document")
    parser.add_argument("--write", action="store_true", help="write the peers' job")
    parser.add_argument("--cluster", action="store_true", help="join the cluster of LAUNCH_*")
    parser.add_argument(
        "--template",
        nargs=argparse.REMAINDER,
        default=[],
        help="all that follows: flags of the variant itself, such as --model.remat-layers 2",
    )
    return parser


if __name__ == "__main__":
    parser = flags_of_training()
    parser.add_argument("job")
    flags = parser.parse_args()
    packages = (jax, equinox, optax)
    versions = {package.__name__: package.__version__ for package in packages}
    serve(lambda job: training(flags, job).step, versions, peak=peak)
