"""Scaling on this machine's CPU: devices, processes, bytes between devices, compile time.

./pants run tests/benchmarks:scaling -- --json tests/benchmarks/results/scaling.json
"""

import argparse
import contextlib
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from tests.benchmarks.collectives import compiled_step, small_config, traffic
from tests.benchmarks.contest import CHECKED_STEPS, WARMING_STEPS, NotMeasured, Worker, start
from tests.benchmarks.measure import (
    Aim,
    BenchmarkError,
    Series,
    Table,
    finish,
    flags_of,
    interleave,
    positive,
    run,
    spread,
    timed,
)
from tests.benchmarks.worker import Job

OURS = "grug base"
DEVICES = 8
# (processes, devices of each); the first is what the others are held against.
CLUSTERS = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1), (2, 4)]
STRONG_ROWS, WEAK_ROWS = 8, 2  # of a batch in all; for each device
LAYERS = (4, 24, 96)
FLAT, TRAFFIC = 1.5, 1.1


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_cluster(
    processes: int, devices: int, rows: int, keep: contextlib.ExitStack
) -> list[Worker]:
    """The template's step in several processes; each has done its first steps."""
    job = Job(Path(keep.enter_context(tempfile.TemporaryDirectory())))
    shared = {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "LAUNCH_COORDINATOR": f"127.0.0.1:{free_port()}",
        "LAUNCH_NUM_PROCESSES": str(processes),
        "LAUNCH_HEARTBEAT_S": "600",  # they wait for their turn
    }
    workers = [
        start(
            f"process {index}",
            "tests.benchmarks.ours",
            job,
            keep,
            *("--rows", str(rows), "--cluster"),
            env=shared | {"LAUNCH_PROCESS_ID": str(index)},
            wait=False,
        )
        for index in range(processes)
    ]
    for worker in workers:
        worker.versions = worker.read()["versions"]
    together(workers, CHECKED_STEPS)
    return workers


def together(workers: Sequence[Worker], steps: int) -> float:
    """Seconds that the slowest took."""
    for worker in workers:
        worker.ask(steps)
    return max(worker.read()["seconds"] for worker in workers)


def in_turn(workers: Sequence[Worker], steps: int) -> float:
    """What `together` says, warm as Worker.seconds has it."""
    together(workers, WARMING_STEPS)
    return together(workers, steps)


def scale(title: str, rows_of: Callable[[int], int], flags: argparse.Namespace) -> Table:
    """Tokens/s of each cluster with the batch that `rows_of` its number of devices gives."""
    clusters = CLUSTERS[:2] + CLUSTERS[4:5] if flags.quick else CLUSTERS
    with contextlib.ExitStack() as keep:
        try:
            running = {c: start_cluster(*c, rows_of(c[0] * c[1]), keep) for c in clusters}
            asked = {
                c: lambda workers=workers: in_turn(workers, flags.steps_per_round)
                for c, workers in running.items()
            }
            seconds = interleave(asked, flags.rounds)
        except NotMeasured as why:
            raise BenchmarkError(str(why)) from None
    series, first = [], spread(seconds[1, 1]).median / rows_of(1)
    for (processes, devices), times in seconds.items():
        rows = rows_of(processes * devices)
        rates = tuple(flags.steps_per_round * rows * 256 / s for s in times)
        share = 100 * first * rows / spread(times).median
        name = "1 process" if processes == 1 else f"{processes} processes"
        name += " × 1 device" if devices == 1 else f" × {devices} devices"
        series.append(Series(name, OURS, rates, {"% of one device": share, "rows": rows}))
    return Table(title, "tokens/s", "more", tuple(series))


def moved(devices: int) -> tuple[Table, list[Aim]]:
    """Bytes between devices in a step against the least; they follow from the program alone."""
    series, aims = [], []
    for kind in ("fsdp", "tensor"):
        for recomputed in (0, 4):
            name = f"{kind}, {recomputed} of 4 layers recomputed"
            found = traffic(small_config(remat_layers=recomputed), kind, devices)
            total = sum(found.counted.values()) / 2**20
            facts = {"least, MiB": found.least / 2**20}
            facts |= {f"{k}, MiB": v / 2**20 for k, v in sorted(found.counted.items())}
            series.append(Series(name, OURS, (total,), facts))
            ratio = spread([found.ratio])
            aims.append(Aim(f"{name}: bytes against the least", ratio, "at most", TRAFFIC))
    title = f"Bytes that a step moves through each of {devices} devices"
    return Table(title, "MiB", "less", tuple(series)), aims


def compile_times(rounds: int) -> tuple[Table, Aim]:
    """Seconds to trace and compile the step at each depth."""
    asked = {
        layers: lambda layers=layers: timed(
            lambda: compiled_step(small_config(n_layers=layers), (1, 1, 1))
        )
        for layers in LAYERS
    }
    seconds = interleave(asked, rounds)
    growth = [b / a for a, b in zip(seconds[LAYERS[0]], seconds[LAYERS[-1]], strict=True)]
    what = f"compile time at {LAYERS[-1]} layers against {LAYERS[0]}"
    series = [Series(f"{layers} layers", OURS, times) for layers, times in seconds.items()]
    table = Table("Compile time by depth", "seconds", "less", tuple(series))
    return table, Aim(what, spread(growth), "at most", FLAT)


def main(flags: argparse.Namespace, load: float) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    strong = scale("Strong scaling: one batch of 8 rows", lambda devices: STRONG_ROWS, flags)
    weak = scale("Weak scaling: 2 rows per device", lambda devices: WEAK_ROWS * devices, flags)
    bytes_moved, aims = moved(DEVICES)
    depth, flat = compile_times(flags.rounds)
    versions = {"jax": jax.__version__}
    tables = [strong, weak, bytes_moved, depth]
    finish(flags, tables, load=load, aims=[*aims, flat], versions=versions)


if __name__ == "__main__":
    parser = flags_of("scaling", __doc__)
    parser.add_argument("--steps-per-round", type=positive, default=2, help="in each round (2)")
    run("scaling", main, parser)
