"""Saving and restoring: how long training stands still, and MB/s beside a plain copy of a file.

./pants run tests/benchmarks:checkpoints -- --json tests/benchmarks/results/checkpoints.json
"""

import argparse
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.grug.base.launch import PRESETS
from experiments.grug.base.model import BATCH
from experiments.grug.base.plumbing.checkpoint import Checkpoints
from experiments.grug.base.plumbing.packing import to_devices
from experiments.grug.base.train import (
    Batch,
    TrainConfig,
    TrainState,
    make_mesh,
    make_optimizer,
    make_train_step,
)
from tests.benchmarks.measure import (
    Aim,
    Series,
    Table,
    finish,
    flags_of,
    interleave,
    run,
    spread,
    timed,
)
from tests.benchmarks.ours import benchmark_config, random_batches

DEVICES = 4
MESHES = {"same mesh": (1, DEVICES, 1), "another mesh": (2, DEVICES // 2, 1)}
STILL = 5.0  # % of a step
OURS = "grug base"
META: dict[str, Any] = {"config": {}}


class Training:
    """The template's step on one batch again and again, as a run goes: one step at a time."""

    def __init__(self, cfg: TrainConfig):
        optimizer = make_optimizer(cfg)
        self.init = jax.jit(lambda: TrainState.init(cfg, optimizer))
        self.state = self.init()
        arrays: dict[str, Any] = random_batches(cfg, whole=False)[0]
        self.batch = to_devices(Batch(**arrays), BATCH)
        self.update = make_train_step(cfg, optimizer)

    def step(self) -> None:
        self.state, metrics = self.update(self.state, self.batch)
        jax.block_until_ready(metrics)

    def nbytes(self) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(self.state))


class Saves:
    """Saves of one training, the last one kept."""

    def __init__(self, training: Training, folder: Path):
        self.training, self.step = training, 0
        self.checkpoints = Checkpoints(folder, keep=1)
        self.still: list[float] = []

    def begin(self) -> None:
        self.step += 1
        begin = timed(lambda: self.checkpoints.save(self.step, self.training.state, META))
        self.still.append(begin)

    def whole(self) -> None:
        self.begin()
        self.checkpoints.wait()

    def restore(self, mesh: tuple[int, int, int], cfg: TrainConfig) -> None:
        with jax.set_mesh(make_mesh(dataclasses.replace(cfg, mesh=mesh))):
            like = jax.eval_shape(self.training.init)
            state, _ = self.checkpoints.restore(self.step, like, META["config"])
            jax.block_until_ready(state)


def standing_still(saves: Saves, rounds: int, steps: int) -> tuple[Table, Aim]:
    """Time of steps, alone and with a save begun before them that is written meanwhile."""
    training = saves.training

    def plain() -> float:
        return timed(lambda: [training.step() for _ in range(steps)]) / steps

    def saving() -> float:
        seconds = timed(lambda: (saves.begin(), [training.step() for _ in range(steps)]))
        saves.checkpoints.wait()
        return seconds / steps

    for warm in (plain, saving):
        warm()
    saves.still.clear()
    found = interleave({"steps alone": plain, "with a save": saving}, rounds)
    parts = {**found, "the save call itself": tuple(saves.still)}
    series = [Series(name, OURS, seconds) for name, seconds in parts.items()]
    pairs = zip(saves.still, found["steps alone"], strict=True)
    share = spread([100 * still / step for still, step in pairs])
    title = f"Training that goes on: {steps} steps, one save"
    aim = Aim("the save call, % of one step", share, "at most", STILL)
    return Table(title, "seconds a step", "less", tuple(series)), aim


def copy(source: Path, target: Path) -> None:
    """`cp` and a sync: what is written is on the disk, as a checkpoint is."""
    target.unlink(missing_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new, 1 << 24)
        os.fsync(new.fileno())


def throughput(saves: Saves, cfg: TrainConfig, folder: Path, rounds: int) -> Table:
    """MB/s of whole saves and restores; the state's bytes as one file beside them."""
    size, plain = saves.training.nbytes(), folder / "plain"
    plain.write_bytes(np.random.default_rng(0).bytes(size))
    saves.whole()
    asked: dict[tuple[str, str], Callable[[], Any]] = {
        ("save", OURS): saves.whole,
        ("save", "copy and sync of one file"): lambda: copy(plain, folder / "copy"),
    }
    for name, mesh in MESHES.items():
        asked[f"restore, {name}", OURS] = lambda mesh=mesh: saves.restore(mesh, cfg)
        asked[f"restore, {name}", "read of one file"] = plain.read_bytes
    found = interleave({n: lambda work=work: timed(work) for n, work in asked.items()}, rounds)
    series = (
        Series(case, name, tuple(size / 1e6 / seconds for seconds in times))
        for (case, name), times in found.items()
    )
    return Table(f"{size / 1e6:,.0f} MB in files that are in memory", "MB/s", "more", tuple(series))


def main(flags: argparse.Namespace, load: float) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    preset, steps = ("tiny", 3) if flags.quick else ("25m", 10)
    cfg = dataclasses.replace(
        benchmark_config(PRESETS, preset, "float32"), mesh=MESHES["same mesh"]
    )
    with tempfile.TemporaryDirectory() as directory, jax.set_mesh(make_mesh(cfg)):
        saves = Saves(Training(cfg), Path(directory))
        still, aim = standing_still(saves, flags.rounds, steps)
        tables = [still, throughput(saves, cfg, Path(directory), flags.rounds)]
    versions = {"jax": jax.__version__}
    finish(flags, tables, load=load, aims=[aim], versions=versions)


if __name__ == "__main__":
    run("checkpoints", main, flags_of("checkpoints", __doc__))
