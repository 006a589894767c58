"""Text to tokens, tokens to batches: beside the tokenizers library, and as a share of a step.

./pants run tests/benchmarks:input -- --json tests/benchmarks/results/input.json
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax

from experiments.grug.base.launch import PRESETS
from experiments.grug.base.model import BATCH
from experiments.grug.base.plumbing.data import TokenStore
from experiments.grug.base.plumbing.packing import loader, to_devices
from experiments.grug.base.train import make_mesh
from tests.benchmarks.contest import NotMeasured, child_environment, start
from tests.benchmarks.measure import (
    Aim,
    BenchmarkError,
    Series,
    Table,
    advantage,
    finish,
    flags_of,
    interleave,
    run,
    spread,
    timed,
)
from tests.benchmarks.worker import Job, cores
from tools.corpus.build import Settings, build
from tools.corpus.default import plan_packages
from tools.corpus.inputs import plan_inputs

PER_CORE, BY_CORES, SHARE = 0.9, 0.8, 2.0


def write_text(path: Path, limit: int) -> int:
    """The default corpus' documents, at least `limit` bytes of them, as JSON lines; their bytes."""
    size = 0
    with path.open("w") as out:
        for file in plan_packages().files:
            text = file.path.read_text()
            print(json.dumps({"text": text}), file=out)
            size += len(text.encode())
            if size >= limit:
                break
    return size


def tokenising(job: Job, size: int, rounds: int) -> tuple[Table, list[Aim]]:
    """MB/s of ours and of the library alone, on one core and on two."""
    counts = [n for n in (1, 2) if n <= cores()]
    names = {"ours": "a token store, from JSON lines", "direct": "tokenizers, encode_batch_fast"}
    with contextlib.ExitStack() as keep:
        try:
            workers = {
                (n, who): start(who, "tests.benchmarks.tokenizing", job, keep, who, str(n))
                for n in counts
                for who in names
            }
            asked: dict[tuple[int, str], Callable[[], float]] = {
                key: lambda w=worker: w.run(1)["seconds"] for key, worker in workers.items()
            }
            for ask in asked.values():
                ask()
            seconds = interleave(asked, rounds)
        except NotMeasured as why:
            raise BenchmarkError(str(why)) from None
    rates = {key: tuple(size / 1e6 / s for s in times) for key, times in seconds.items()}
    series = {
        key: Series(f"{key[0]} core" + "s" * (key[0] > 1), names[key[1]], values)
        for key, values in rates.items()
    }
    table = Table("Tokenising", "MB/s", "more", tuple(series.values()))
    aims = [
        Aim(
            f"{series[n, 'ours'].case}: MB/s against the library alone",
            spread(advantage(series[n, "ours"], series[n, "direct"], "more")),
            "at least",
            PER_CORE,
        )
        for n in counts
    ]
    if len(counts) > 1:
        gain = advantage(series[2, "ours"], series[1, "ours"], "more")
        aims.append(Aim("2 cores against 1, ours", spread(gain), "at least", 2 * BY_CORES))
    return table, aims


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def store_size(store: Path, size: int) -> Table:
    manifest = TokenStore.open(str(store)).manifest
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    raw = tokens * (2 if manifest["dtype"] == "uint16" else 4)
    sizes = {"token store": disk_bytes(store), "raw tokens": raw, "text": size}
    series = [Series("all", name, (n / 2**20,)) for name, n in sizes.items()]
    return Table("Size on disk", "MiB", "less", tuple(series))


def loading(store: Path, rounds: int, batches: int) -> Table:
    """Tokens/s of the loader alone, to the device, when nothing else computes."""
    cfg = PRESETS["tiny"]
    sizes = {"batch_size": cfg.batch_size, "sequence_length": cfg.sequence_length, "axes": BATCH}
    with jax.set_mesh(make_mesh(cfg)):
        rows = loader(TokenStore.open(str(store)), "train", **sizes, seed=0)

        def take() -> None:
            for _ in range(batches):
                jax.block_until_ready(to_devices(next(rows), BATCH))

        take()  # the prefetched ones, too
        seconds = interleave({"loader": lambda: timed(take)}, rounds)["loader"]
    tokens = batches * cfg.batch_size * cfg.sequence_length
    series = Series("", "loader", tuple(tokens / s for s in seconds))
    return Table("Loading, rows of 256 positions", "tokens/s", "more", (series,))


def share_of_step(store: Path, rounds: int, steps: int, directory: Path) -> tuple[Table, Aim]:
    """How long a real run of the tiny preset waits for its batches, in % of a step's time."""
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(directory / "xla")}
    shares = []

    def train() -> float:
        out = directory / f"run-{len(shares)}"
        launch = [sys.executable, "-m", "experiments.grug.base.launch", "--data", str(store)]
        flags = ["--run-dir", str(out), "--steps", str(steps), "--eval-tokens", "512"]
        done = subprocess.run(
            [*launch, *flags, "--no-tensorboard"],
            env=child_environment() | compiled,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BenchmarkError(f"the run failed: {done.stderr[-300:]}")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        of_step = [
            100 * r["throughput/loading_time"] / r["throughput/step_time"]
            for r in rows[2:]  # the first ones compile
        ]
        shares.append(statistics.mean(of_step))
        return shares[-1]

    found = interleave({"share": train}, rounds)["share"]
    table = Table("Waiting for a batch", "% of a step", "less", (Series("", "grug base", found),))
    return table, Aim("waiting for a batch, % of a step", spread(found), "at most", SHARE)


def main(flags: argparse.Namespace, load: float) -> None:
    megabytes, batches, steps = (1, 20, 10) if flags.quick else (16, 500, 60)
    with tempfile.TemporaryDirectory() as directory:
        job, store = Job(Path(directory)), Path(directory) / "store"
        size = write_text(job.directory / "text.jsonl", megabytes * 1_000_000)
        build(plan_inputs([job.directory / "text.jsonl"]), store, Settings(heldout_fraction=0.05))
        (job.directory / "tokenizer.json").write_bytes((store / "tokenizer.json").read_bytes())
        speed, aims = tokenising(job, size, flags.rounds)
        waiting, share = share_of_step(store, flags.rounds, steps, job.directory)
        tables = [speed, store_size(store, size), loading(store, flags.rounds, batches), waiting]
    versions = {name: metadata.version(name) for name in ("grain", "tensorstore", "tokenizers")}
    finish(flags, tables, load=load, aims=[*aims, share], versions=versions)


if __name__ == "__main__":
    run("input", main, flags_of("input", __doc__))
