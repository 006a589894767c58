"""Every signal that ends a run leaves it saved; where nothing is new, it ends at once."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engines.cluster import (
    ENDLESS,
    MODEL,
    MODULES,
    START_S,
    finish,
    rows,
    wait_for,
    wait_for_step,
)

CODES = [
    (signal.SIGTERM, 143),
    (signal.SIGINT, 130),
    (signal.SIGUSR1, 143),  # of Slurm's --signal: a preemption
    (signal.SIGHUP, 129),
]
# Long to compile, so that a signal meets the compiler.
DEEP = "--model.n-layers 24 --model.scan-unroll 24".split()
SLOW = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "JAX_ENABLE_COMPILATION_CACHE": "0"}


def saved(run_dir: Path) -> list[int]:
    return sorted(int(p.parent.name[5:]) for p in run_dir.glob("checkpoints/step-*/COMMIT"))


@pytest.mark.parametrize(("number", "code"), CODES)
def test_after_an_update_a_signal_saves(launch, tmp_path, number, code):
    run_dir = tmp_path / "run"
    workers = launch("base", run_dir, ENDLESS, processes=1, devices=1)
    wait_for_step(workers, run_dir, 3)
    workers[0].process.send_signal(number)
    assert finish(workers, within=60) == [code], workers[0].text()
    assert saved(run_dir) == [rows(run_dir)[-1]["step"]]
    assert "--resume goes on" in workers[0].text()


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("processes", [1, 2])
def test_while_it_compiles_a_signal_ends_the_run_at_once(launch, tmp_path, number, code, processes):
    run_dir, flags = tmp_path / "run", [*ENDLESS, *DEEP]
    workers = launch("base", run_dir, flags, processes=processes, devices=1, **SLOW)
    wait_for(workers, "the loop", (run_dir / "metrics.jsonl").exists)
    time.sleep(3)
    workers[-1].process.send_signal(number)
    codes = finish(workers, within=8)
    texts = [worker.text() for worker in workers]
    assert codes == [code] * processes, "\n".join(texts)
    said = f"stopped by {number.name} before its first update: nothing is new to save"
    assert all(said in text for text in texts), "\n".join(texts)
    assert not rows(run_dir) and not saved(run_dir)


def test_while_it_waits_for_another_process_a_signal_ends_it_at_once(launch, tmp_path):
    workers = launch("base", tmp_path / "run", ENDLESS, processes=2, devices=1, absent=0)
    time.sleep(10)  # it has been imported, and asks for the coordinator
    workers[0].process.send_signal(signal.SIGTERM)
    assert finish(workers, within=8) == [143], workers[0].text()
    assert "stopped by SIGTERM before its first update" in workers[0].text()


def test_a_closed_terminal_costs_nothing(store, cache, tmp_path):
    run_dir, (ours, theirs) = tmp_path / "run", pty.openpty()
    command = [sys.executable, "-m", MODULES["base"], *MODEL, *ENDLESS, "--data", store]

    def on_the_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # this test may run under nohup
        os.login_tty(theirs)

    process = subprocess.Popen(
        [*command, "--run-dir", str(run_dir)],
        env={**os.environ, **cache, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=on_the_terminal,
        pass_fds=[theirs],
    )
    os.close(theirs)
    shown, end = b"", time.monotonic() + START_S
    while b"loss" not in shown and time.monotonic() < end:
        shown += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(60) == 129, shown
    assert rows(run_dir) and saved(run_dir) == [rows(run_dir)[-1]["step"]]


def test_under_nohup_a_closed_terminal_ends_nothing(launch, tmp_path):
    run_dir = tmp_path / "run"

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    workers = launch("base", run_dir, ENDLESS, processes=1, devices=1, before=ignore)
    wait_for_step(workers, run_dir, 2)
    workers[0].process.send_signal(signal.SIGHUP)
    wait_for_step(workers, run_dir, len(rows(run_dir)) + 5)
    workers[0].process.send_signal(signal.SIGTERM)
    assert finish(workers, within=60) == [143]
    assert re.search(r"preempted at step \d+ \(SIGTERM\)", workers[0].text())
