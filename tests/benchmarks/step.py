"""Times the training step of the tiny preset against the same model in other libraries.

Usage: ./pants run tests/benchmarks:step -- [--rounds 7] [--steps-per-round 2] [--markdown]

Each implementation runs in a process of its own. All live at once and are asked in turn, so that
one computes at a time and a slow moment of the machine meets all of them alike.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.table import Measurement, markdown, summarize
from tests.benchmarks.worker import Job, cores

TORCH = "2.13.0"
CHECKED_STEPS = 3
LOSS_TOLERANCE = 2e-5  # relative; float32 on one machine agrees to about 1e-6
NORM_TOLERANCE = 1e-3  # relative; a sum of millions of squares depends on the order of summation
PAUSE = 0.2  # seconds in which the thread pool of the last one to compute goes to sleep


class BenchmarkError(Exception):
    """There is no result to show; the message says why."""


class NotMeasured(Exception):
    """One implementation cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Implementation:
    """Something to time: a module of this directory and its flags."""

    name: str
    module: str
    flags: tuple[str, ...] = ()
    torch: bool = False


OURS = Implementation("grug base", "tests.benchmarks.ours")
PEERS = {
    "nnx": Implementation("Flax NNX", "tests.benchmarks.peer_nnx"),
    "eager": Implementation("PyTorch, eager", "tests.benchmarks.peer_torch", torch=True),
    "compile": Implementation(
        "PyTorch, torch.compile", "tests.benchmarks.peer_torch", ("--compile",), torch=True
    ),
}


@dataclasses.dataclass
class Worker:
    """A running implementation and what it answered so far."""

    name: str
    process: subprocess.Popen
    log: Path
    answers: list[dict] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def read(self) -> dict:
        """Its next answer. Raises NotMeasured, with its last words, if it ended instead."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        lines = self.log.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line and not line.startswith(" ")]
        raise NotMeasured(f"exit {self.process.wait()}: {said[-1] if said else 'no message'}")

    def run(self, first: int, count: int) -> dict:
        """Trains on `count` batches from number `first` on."""
        assert self.process.stdin
        try:
            print(json.dumps({"first": first, "count": count}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # read() says why
        return self.read()


def start(one: Implementation, python: str, job: Job, keep: contextlib.ExitStack) -> Worker:
    """Starts a worker, builds its model, and ends it with `keep`."""
    path = [str(Path(__file__).parents[2])] if one.torch else [p for p in sys.path if p]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PEX_", "PYTHON"))}
    environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
    log = job.directory / f"{one.module}{''.join(one.flags)}.log"
    process = subprocess.Popen(
        [python, "-m", one.module, str(job.directory), *one.flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=keep.enter_context(log.open("w")),
        env=environment,
        text=True,
    )
    keep.enter_context(process)
    keep.callback(process.kill)
    worker = Worker(one.name, process, log)
    worker.versions = worker.read()["versions"]
    return worker


def cache_dir() -> Path:
    if named := os.environ.get("GRUG_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grug"


def has_torch(python: str) -> bool:
    probe = f"import torch; assert torch.__version__.split('+')[0] == '{TORCH}'"
    return works(python, "-c", probe)


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def torch_python(named: str | None) -> str:
    """An interpreter that has PyTorch: the named one, else that of an environment made once.

    Raises:
        NotMeasured: the named one lacks it, or pip finds no build of it for this machine.
    """
    if named:
        if not has_torch(named):
            raise NotMeasured(f"the interpreter that --torch-python names lacks torch {TORCH}")
        return named
    home = cache_dir() / f"bench-torch-{TORCH}"
    python = str(home / "bin" / "python")
    if has_torch(python):
        return python
    # A python3.11 on PATH may be a shim without an interpreter behind it.
    maker = next((p for p in ("python3.11", sys.executable) if works(p, "-c", "import venv")), None)
    if maker is None:
        raise NotMeasured("no interpreter to make an environment with; name one: --torch-python")
    print(f"installing torch {TORCH}, once", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    for command in (
        [maker, "-m", "venv", str(home)],
        [python, "-m", "pip", "install", "--quiet", f"torch=={TORCH}", "numpy"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise NotMeasured(f"torch {TORCH} could not be installed: {said[-1]}")
    return python


def check_agreement(ours: Worker, peer: Worker) -> None:
    """Raises BenchmarkError unless the first steps show one model and one update."""
    for name, tolerance in (("losses", LOSS_TOLERANCE), ("grad_norms", NORM_TOLERANCE)):
        expected, found = ours.answers[0][name], peer.answers[0][name]
        for step, (a, b) in enumerate(zip(expected, found, strict=True), start=1):
            if not math.isclose(a, b, rel_tol=tolerance):
                raise BenchmarkError(
                    f"step {step}: {name} of {ours.name} {a:.6f}, of {peer.name} {b:.6f}; they "
                    "are not the same model, so their times are not compared"
                )


def measure(
    implementations: Sequence[Implementation],
    *,
    rounds: int,
    steps_per_round: int,
    torch: str | None,
) -> tuple[list[Measurement], dict[str, str], dict]:
    """Times all in turn.

    Returns:
        The measurements, ours first; why others are missing, by name; the config they trained.
    """
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as keep:
        job = Job(Path(keep.enter_context(tempfile.TemporaryDirectory())))
        workers = []
        for one in implementations:
            print(f"starting {one.name}", file=sys.stderr)
            try:
                python = torch_python(torch) if one.torch else sys.executable
                worker = start(one, python, job, keep)
                worker.answers.append(worker.run(0, CHECKED_STEPS))  # this compiles, too
                workers.append(worker)
            except NotMeasured as why:
                if one is OURS:
                    raise BenchmarkError(f"{one.name}: {why}") from None
                missing[one.name] = str(why)
        for peer in workers[1:]:
            check_agreement(workers[0], peer)
        # Round 0 warms up: buffers and clocks settle.
        for number in range(rounds + 1):
            for worker in workers:
                time.sleep(PAUSE)
                first = CHECKED_STEPS + number * steps_per_round
                worker.answers.append(worker.run(first, steps_per_round))
            print(f"round {number} of {rounds}", file=sys.stderr)
        config = job.config
    measurements = [
        Measurement(
            name=worker.name,
            seconds=tuple(answer["seconds"] for answer in worker.answers[2:]),
            cpu_seconds=tuple(answer["cpu_seconds"] for answer in worker.answers[2:]),
            peak_bytes=worker.answers[-1]["peak_bytes"],
            versions=worker.versions,
        )
        for worker in workers
    ]
    return measurements, missing, config


def machine() -> str:
    """The processor and the number of cores."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {cores()} cores, {platform.system()}"


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value}: must be at least 1")
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="step", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=positive, default=7, help="timed rounds (7)")
    parser.add_argument("--steps-per-round", type=positive, default=2, help="steps in each (2)")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="what to compare with (all)"
    )
    parser.add_argument(
        "--torch-python",
        default=os.environ.get("GRUG_TORCH_PYTHON"),
        metavar="PATH",
        help=f"interpreter that has torch {TORCH} and numpy (GRUG_TORCH_PYTHON; else one is made)",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every round to OUT")
    parser.add_argument("--markdown", action="store_true", help="print docs/benchmarks.md's table")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 no result (implementations disagree or ours fails), 2 bad flags."""
    flags = parse(argv)
    load = os.getloadavg()[0]
    try:
        measurements, missing, config = measure(
            [OURS, *(PEERS[name] for name in flags.peers)],
            rounds=flags.rounds,
            steps_per_round=flags.steps_per_round,
            torch=flags.torch_python,
        )
    except BenchmarkError as error:
        print(f"step: {error}", file=sys.stderr)
        return 1
    tokens = config["batch_size"] * config["sequence_length"]
    ours, *peers = measurements
    rows = summarize(ours, peers, tokens_per_step=tokens, steps_per_round=flags.steps_per_round)
    versions = {name: v for m in measurements for name, v in m.versions.items()}
    versions["python"] = platform.python_version()
    if flags.json:
        report = {
            "machine": machine(),
            "load_before": load,
            "versions": versions,
            "config": config,
            "steps_per_round": flags.steps_per_round,
            "measurements": [dataclasses.asdict(m) for m in measurements],
            "rows": [dataclasses.asdict(row) for row in rows],
            "not_measured": missing,
        }
        flags.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    if flags.markdown:
        print(markdown(rows))
        print(
            f"\n{machine()}; load {load:.1f} before the run. {flags.rounds} rounds of "
            f"{flags.steps_per_round} steps. "
            + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            + "."
        )
    else:
        for row in rows:
            print(
                f"{row.name:24} {row.tokens_per_second:9,.0f} tokens/s "
                f"({row.slowest:,.0f}-{row.fastest:,.0f})  ours/it {row.ratio:5.2f}  "
                f"{row.peak_bytes / 2**20:6,.0f} MiB  {row.milliseconds:7,.0f} ms a step"
            )
    for name, why in missing.items():
        print(f"not measured: {name}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
