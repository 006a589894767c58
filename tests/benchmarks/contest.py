"""Contestants in processes of their own: started, asked, and ended together."""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.measure import BenchmarkError
from tests.benchmarks.worker import Job

TORCH = "2.13.0"
CHECKED_STEPS = 3
WARMING_STEPS = 2
# Relative, of (losses, norms of gradients): float32 on one machine agrees to about 1e-6 and 1e-4,
# sums of millions of squares depend on their order; bfloat16 has 8 bits.
TOLERANCES = {"float32": (2e-5, 1e-3), "bfloat16": (5e-3, 5e-2)}
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    # For all alike, as ./pants run launch does for the template: a huge page is one fault for 512.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
ROOT = Path(__file__).parents[2]
NO_PACKAGES = {"PYTHONPATH": str(ROOT)}
"""Variables of a process that imports tests/ and what its interpreter has, but nothing of ours."""
FAILURE = re.compile(r"[\w.]+(Error|Exception|Exit): ")
SHOWN = 300  # characters of a worker's last words
AT_ONCE = 1.0  # seconds


class NotMeasured(Exception):
    """One contestant cannot run here; the message says why."""


@dataclasses.dataclass
class Worker:
    """A process that runs tests.benchmarks.worker.serve."""

    name: str
    process: subprocess.Popen
    log: Path
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    steps: int = 0
    answer: dict = dataclasses.field(default_factory=dict)
    """The newest."""
    until: float = math.inf
    """time.monotonic() until which it must answer; else it is killed."""

    def ask(self, count: int) -> None:
        """Has it do its next `count` steps; `read` waits for them."""
        assert self.process.stdin
        request = {"first": self.steps, "count": count}
        self.steps += count
        with contextlib.suppress(BrokenPipeError):  # read() says why
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def read(self) -> dict:
        """Its next answer. Raises NotMeasured, with its last words, if it ended instead."""
        assert self.process.stdout
        # What it has answered already is at once there to read, however late it is.
        left = max(AT_ONCE, self.until - time.monotonic())
        timer = threading.Timer(min(left, threading.TIMEOUT_MAX), self.process.kill)
        timer.daemon = True
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if line:
            self.answer = json.loads(line)
            return self.answer
        if time.monotonic() > self.until:
            raise NotMeasured("it was not ready in time")
        code, text = self.process.wait(), self.log.read_text(errors="replace")
        print(f"{self.name}: exit {code}:\n{text[-5000:]}", file=sys.stderr)
        raise NotMeasured(f"exit {code}: {last_words(text)}")

    def run(self, count: int) -> dict:
        self.ask(count)
        return self.read()

    def seconds(self, count: int) -> float:
        """Of `count` steps, by its own clock, as in a run that goes on: two come before.

        While others compute, its share of the caches is lost, and a virtual machine gives memory
        that it does not use back to its host: the first steps of a turn may take twice as long.
        """
        self.run(WARMING_STEPS)
        return self.run(count)["seconds"]


def last_words(log: str) -> str:
    """The line of a log that says why its process ended: the last exception's, else the last."""
    said = [line.strip() for line in log.split("\n") if line and not line.startswith(" ")]
    failures = [line for line in said if FAILURE.match(line)]
    return (failures or said or ["no message"])[-1][:SHOWN]


def child_environment(*, own: bool = True) -> dict[str, str]:
    """Variables of a Python that imports what this one does, or (not `own`) tests/ alone."""
    path = os.pathsep.join(p for p in sys.path if p)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PEX_", "PYTHON"))}
    return {**ENVIRONMENT, **inherited, **({"PYTHONPATH": path} if own else NO_PACKAGES)}


def start(
    name: str,
    module: str,
    job: Job,
    keep: contextlib.ExitStack,
    *flags: str,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Worker:
    """A worker that runs `module`, ended with `keep`; waits until it is built.

    Raises:
        NotMeasured: it ended instead.
    """
    log = job.directory / f"{len(list(job.directory.glob('*.log')))}.log"
    process = subprocess.Popen(
        [python, "-m", module, str(job.directory), *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=keep.enter_context(log.open("w")),
        env=child_environment(own=python == sys.executable) | dict(env or {}),
        text=True,
    )
    keep.enter_context(process)
    keep.callback(process.kill)
    worker = Worker(name, process, log)
    if wait:
        worker.versions = worker.read()["versions"]
    return worker


def check_agreement(ours: Worker, peer: Worker, dtype: str, steps: int = CHECKED_STEPS) -> None:
    """Raises BenchmarkError unless their first steps show one model and one update."""
    for name, tolerance in zip(("losses", "grad_norms"), TOLERANCES[dtype], strict=True):
        pairs = list(zip(ours.answer[name], peer.answer[name], strict=True))[:steps]
        for step, (a, b) in enumerate(pairs, 1):
            if not math.isclose(a, b, rel_tol=tolerance):
                raise BenchmarkError(
                    f"step {step}: {name} of {ours.name} {a:.6f}, of {peer.name} {b:.6f}; they "
                    "are not the same model, so their times are not compared"
                )


def cache_dir() -> Path:
    if named := os.environ.get("GRUG_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grug"


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def torch_python(named: Path | None) -> str:
    """An interpreter that has PyTorch: the named one, else that of an environment made once.

    Raises:
        NotMeasured: the named one lacks it, or pip finds no build of it for this machine.
    """
    has_torch = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('torch'))"
    if named and not works(str(named), "-c", has_torch):
        raise NotMeasured("the interpreter that --torch-python names has no torch")
    probe = f"import torch; assert torch.__version__.split('+')[0] == '{TORCH}'"
    return str(named or environment("torch", [f"torch=={TORCH}", "numpy"], probe))


def environment(name: str, requirements: Sequence[str], probe: str) -> Path:
    """The interpreter of an environment with `requirements`, made where `probe` does not run.

    Raises:
        NotMeasured: there is no interpreter to make it with, or pip can't install them.
    """
    versions = "-".join(r.partition("==")[2] for r in requirements if "==" in r)
    home = cache_dir() / f"bench-{name}-{versions}"
    python = home / "bin" / "python"
    if works(str(python), "-c", probe):
        return python
    if not works(sys.executable, "-c", "import venv, ensurepip"):
        raise NotMeasured(f"{sys.executable} cannot make an environment: it has no venv or no pip")
    print(f"making an environment: {name} {' '.join(requirements)}", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    for command in ([sys.executable, "-m", "venv", str(home)], *[install] * bool(requirements)):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise NotMeasured(f"{' '.join(requirements)} could not be installed: {said[-1]}")
    return python
