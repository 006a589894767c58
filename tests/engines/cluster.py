"""A run in several real processes on this machine, each with CPU devices of its own."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MODULES = {"base": "experiments.grug.base.launch", "moe": "experiments.grug.moe.launch"}
MODEL = (
    "--model.vocab-size 320 --model.d-model 32 --model.n-layers 1 --model.n-heads 4 "
    "--model.n-kv-heads 2 --model.head-dim 8 --model.d-ff 64 --model.loss-chunk 32 "
    "--model.scan-unroll 1 --sequence-length 64 --batch-size 8 --warmup-steps 2 --eval-every 4 "
    "--eval-tokens 2048 --no-tensorboard"
).split()
EXPERTS = "--model.n-experts 4 --model.top-k 2 --model.d-expert 16".split()
ENDLESS = ["--steps", "100000", "--checkpoint-every", "100000", "--eval-every", "0"]
START_S = 240
"""A bound for tests alone: how long a process may take here to import, compile and run."""


@dataclasses.dataclass
class Worker:
    """One process of a run; its output, both streams together, is in a file."""

    process: subprocess.Popen
    log: Path

    def text(self) -> str:
        return self.log.read_text()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(
    module: str,
    flags: list[str],
    logs: Path,
    *,
    processes: int,
    devices: int,
    absent: int | None = None,
    before: Callable[[], None] | None = None,
    through: Sequence[str] = (),
    **variables: str,
) -> list[Worker]:
    """Starts `processes` workers with `devices` devices each, less the one that is absent.

    `before` is called in each of them before it becomes the program, which the command `through`
    starts.
    """

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        if before:
            before()

    logs.mkdir(parents=True, exist_ok=True)
    shared = {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling is most of the time
        "LAUNCH_COORDINATOR": f"127.0.0.1:{free_port()}",
        "LAUNCH_NUM_PROCESSES": str(processes),
    }
    workers = []
    for index in range(processes):
        log = logs / f"{index}.log"
        own = {"LAUNCH_PROCESS_ID": str(index)}
        if index != absent:
            with log.open("w") as out:
                process = subprocess.Popen(
                    [*through, sys.executable, "-m", module, *flags],
                    env={**os.environ, **shared, **variables, **own},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    preexec_fn=prepare,
                )
            workers.append(Worker(process, log))
    return workers


def train(variant: str, store: str, run_dir: Path, flags: list[str], *args, **options):
    """`start` of a small run of a variant."""
    data = ["--data", store, "--run-dir", str(run_dir)]
    experts = EXPERTS if variant == "moe" else []
    return start(MODULES[variant], [*MODEL, *experts, *data, *flags], *args, **options)


def cache_in(directory: Path) -> dict[str, str]:
    """Variables by which what one process has compiled, the next one finds."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(directory),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def finish(workers: list[Worker], *, within: float) -> list[int]:
    """The exit codes of processes that end in time; kills what is left, and fails, otherwise."""
    deadline = time.monotonic() + within
    try:
        for worker in workers:
            worker.process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        output = "\n".join(f"--- {w.log.name}\n{w.text()[-3000:]}" for w in workers)
        raise AssertionError(f"not ended within {within} s\n{output}") from None
    finally:
        kill(workers)
    return [worker.process.returncode for worker in workers]


def kill(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def rows(run_dir: Path) -> list[dict[str, float]]:
    """A run's whole lines of metrics so far."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for(workers: list[Worker], what: str, found: Callable[[], bool]) -> None:
    """Waits until `found()`; fails when a worker ends, or after as long as a start may take."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and all(w.process.poll() is None for w in workers):
        if found():
            return
        time.sleep(0.02)
    kill(workers)
    raise AssertionError(f"{what} was not reached:\n" + "\n".join(w.text() for w in workers))


def wait_for_step(workers: list[Worker], run_dir: Path, step: int) -> None:
    wait_for(workers, f"step {step}", lambda: len(rows(run_dir)) >= step)


def wait_for_text(worker: Worker, text: str) -> None:
    wait_for([worker], repr(text), lambda: text in worker.text())
