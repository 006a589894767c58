"""A small run of the template as a process of its own, struck by faults and started again.

How often a drill strikes is the environment's: GRUG_DRILLS=50 strikes 50 times, without it a few. A
drill ends with one line, a row of the table in docs/reference/faults.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from experiments.grug.base.plumbing.storage import Folder

MODULE = "experiments.grug.base.launch"
FLAGS = (
    "--model.vocab-size 512 --model.d-model 32 --model.n-layers 2 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 16 --model.d-ff 128 --model.loss-chunk 64 "
    "--sequence-length 64 --batch-size 8 --learning-rate 3e-3 --warmup-steps 5 --eval-every 25 "
    "--eval-tokens 2048 --checkpoint-every 5"
).split()
STRIKES = int(os.environ.get("GRUG_DRILLS", "0"))
AGAIN = (128 + signal.SIGTERM,)
"""Exit codes that ask to be started again."""
CLOCKED = ("tokens_per_second", "step_time", "loading_time")


STEPS = max(120, 15 * STRIKES)
"""Of a run: more than it makes between so many strikes."""


def strikes(few: int) -> int:
    """How often to strike: as the environment says, else a few times."""
    return STRIKES or few


@dataclass
class Run:
    """One run in its own directory or bucket, over as many starts as it takes."""

    store: str
    run_dir: str
    flags: list[str]
    cache: Path
    ahead: list[str] = field(default_factory=list)
    """Directories of modules that go before all others."""
    within: list[str] = field(default_factory=list)
    """A command that runs another one."""
    codes: Counter[int] = field(default_factory=Counter)
    logs: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen:
        """Starts it, or goes on with it."""
        shared = {
            "PYTHONPATH": os.pathsep.join([*self.ahead, *sys.path]),
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        place = ["--data", self.store, "--run-dir", self.run_dir, "--resume"]
        return subprocess.Popen(
            [*self.within, sys.executable, "-m", MODULE, *FLAGS, *place, *self.flags],
            env={**os.environ, **shared},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def end(self, process: subprocess.Popen, *, within: float = 600) -> int:
        """Waits for its end, notes how it ended, and returns the exit code."""
        try:
            out, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            raise AssertionError(f"not ended within {within} s:\n{out[-4000:]}") from None
        self.codes[process.returncode] += 1
        self.logs.append(out)
        return process.returncode

    def finish(self, *, starts: int = 20) -> None:
        """Starts it as often as its exit code asks for, until it is done."""
        for _ in range(starts):
            if (code := self.end(self.start())) not in AGAIN:
                break
        assert code == 0, self.logs[-1][-4000:]

    def rows(self) -> list[dict[str, float]]:
        """Whole lines of its metrics so far."""
        content = Folder(self.run_dir).read("metrics.jsonl") or b""
        return [
            json.loads(line) for line in content.splitlines(keepends=True) if line[-1:] == b"\n"
        ]

    def wait_for_step(self, process: subprocess.Popen, step: int) -> None:
        """Waits until so many steps are on record."""
        end = time.monotonic() + 300
        while len(self.rows()) < step:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                raise AssertionError(f"step {step} was not reached: {process.communicate()[0]}")
            time.sleep(0.02)

    def newest(self) -> dict[str, bytes]:
        """The files of its newest checkpoint."""
        folder = Folder(self.run_dir)
        steps = {name.split("/")[1] for name in folder.names("checkpoints/")}
        prefix = f"checkpoints/{max(steps)}/"
        return {n.removeprefix(prefix): folder.read(n) or b"" for n in folder.names(prefix)}


def assert_nothing_lost(run: Run, whole: Run) -> None:
    """The parameters are bit for bit those of a run that nothing struck, and so are the metrics."""
    ours, theirs = run.newest(), whole.newest()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []

    def learned(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.endswith(CLOCKED)} for row in rows]

    assert learned(run.rows()) == learned(whole.rows())


def tell(drill: str, struck: str, run: Run) -> None:
    """Prints the drill's row."""
    ends = ", ".join(f"{n} x {code}" for code, n in sorted(run.codes.items()))
    print(f"\n| {drill} | {struck} | {ends} | nothing |")
