"""A packed bundle, a small run of it, and the programs that its engines are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.engines.cluster import MODEL, Worker, rows

# A host's: as on a machine that has nothing but Python.
PYTHON = str(Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info)))
SMALL = [*MODEL, "--model.vocab-size", "1024"]  # the vocabulary of the sample in a bundle
ENDLESS = ["--steps", "100000", "--checkpoint-every", "100000", "--eval-every", "0"]
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling is most of the time
RUN_S = 240
"""A bound for tests alone: how long a small run may take here, all of it."""


def packed(name: str) -> Path:
    """bundles/NAME/ where `./pants test` puts it, or where `./pants package` did."""
    places = [Path("bundles", name), Path("dist/bundles", name)]
    found = [place.resolve() for place in places if (place / "run.py").exists()]
    if not found:
        pytest.fail(f"no bundle {name} to test: ./pants package experiments/grug/base::")
    return found[0]


def program(name: str, variable: str) -> str:
    """A Python with what a resolve locks: a pex that `./pants test` built, or the one named."""
    built = Path("tests/slow/engines", name)
    # Not by its first line: the Python that it names may be on PATH as a shim that does not run.
    found = [sys.executable, str(built.resolve())] if built.exists() else []
    found = found or [each for each in [os.environ.get(variable)] if each]
    if not found:
        pytest.fail(f"no {built}: set {variable} to a Python that has tools/locks/engines.in")
    ask = [*found, "-c", "import sys; print(sys.prefix)"]
    prefix = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    return f"{prefix}/bin/python"


def start(command: list[str], log: Path, env: dict[str, str]) -> Worker:
    """A program in a session of its own, as a terminal would have it."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Worker(process, log)


def processes_of(run_dir: Path) -> dict[str, psutil.Process]:
    """The programs that train into `run_dir` now, by LAUNCH_PROCESS_ID."""
    found = {}
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if str(run_dir) in line and "experiments.grug.base.launch" in line:
                found[process.environ().get("LAUNCH_PROCESS_ID", "")] = process
        except psutil.Error:
            continue  # it has just ended
    return found


def ended(run_dir: Path, within: float) -> bool:
    """Whether no program of a run is left after some seconds."""
    deadline = time.monotonic() + within
    while processes_of(run_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes_of(run_dir)


def devices(run_dir: Path) -> dict:
    """What the record says of the last attempt: devices, and processes."""
    return json.loads((run_dir / "run.json").read_text())["attempts"][-1]["devices"]


def steps(run_dir: Path) -> list[int]:
    return [int(row["step"]) for row in rows(run_dir)]
