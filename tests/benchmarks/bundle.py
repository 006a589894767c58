"""Launch bundles: built, weighed and started, beside pip and the copy of an image's files.

./pants run tests/benchmarks:bundle -- --json tests/benchmarks/results/bundle.json

Starting means: until the program has printed its --help, with everything that it imports. A cold
start fetches the wheels from the index that this machine uses, so the network is in it.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
from tests.workspace.workspace import Workspace

TARGET = "experiments/grug/base#launch-cpu"
MODULE = "experiments.grug.base.launch"
OURS, PIP, IMAGE = "bundle", "pip install", "copy of an image's files"
THIN = 1.0  # MB


def command(*words: Any, **variables: str) -> None:
    """Runs a program as on a worker: none of this process's Python settings or caches."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PEX_", "PYTHON"))}
    done = subprocess.run(
        [str(word) for word in words],
        env=inherited | variables,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr or done.stdout)[-500:]
        raise BenchmarkError(f"{' '.join(map(str, words))} failed: {said}")


class Worker:
    """A machine's cache directories, and the ways to start the bundle's program there."""

    def __init__(self, bundle: Path, directory: Path):
        self.bundle, self.directory = bundle, directory
        self.numbers = itertools.count()

    def fresh(self, name: str) -> Path:
        """A path that nothing is at yet; the one before it is removed."""
        number = next(self.numbers)
        for old in self.directory.glob(f"{name}-*"):
            shutil.rmtree(old)
        return self.directory / f"{name}-{number}"

    def no_cache(self) -> dict[str, str]:
        caches = str(self.fresh("caches"))
        return {"XDG_CACHE_HOME": caches, "UV_CACHE_DIR": f"{caches}/uv", "PIP_NO_CACHE_DIR": "1"}

    def run_py(self, venvs: Path, variables: Mapping[str, str]) -> None:
        run_py = self.bundle / "run.py"
        command(sys.executable, run_py, "--help", GRUG_VENVS=str(venvs), **variables)

    def program(self, venv: Path) -> None:
        """The program in an environment that is complete."""
        application = str(self.bundle / "app.pex")
        command(venv / "bin/python", "-m", MODULE, "--help", PYTHONPATH=application)

    def pip(self, venv: Path, variables: Mapping[str, str]) -> None:
        command(sys.executable, "-m", "venv", venv)
        strict = ("--require-hashes", "--only-binary", ":all:", "--quiet")
        requirements = self.bundle / "requirements.txt"
        command(
            venv / "bin/python", "-m", "pip", "install", *strict, "-r", requirements, **variables
        )

    def cold_bundle(self) -> None:
        self.run_py(self.fresh("venvs"), self.no_cache())

    def cold_pip(self) -> None:
        venv = self.fresh("pip")
        self.pip(venv, self.no_cache())
        self.program(venv)

    def cold_image(self, venv: Path) -> None:
        """As if an image's layers had been fetched at once: its files are copied and synced."""
        copy = self.fresh("image")
        shutil.copytree(venv, copy, symlinks=True)
        os.sync()
        self.program(copy)


def build(workspace: Workspace, rounds: int) -> Table:
    """Seconds to package one bundle."""

    def package(*options: str) -> None:
        done = workspace.pants(*options, "package", TARGET)
        if done.returncode:
            raise BenchmarkError(f"./pants package {TARGET} failed: {done.stderr[-2000:]}")

    def edited() -> float:
        workspace.edit("base")
        return timed(package)

    cold = ("--no-pantsd", "--no-local-cache")
    asked: dict[str, Callable[[], float]] = {
        "after an edit": edited,
        "nothing changed": lambda: timed(package),
        "nothing cached": lambda: timed(lambda: package(*cold)),
    }
    package()
    found = interleave(asked, rounds)
    series = [Series(case, OURS, seconds) for case, seconds in found.items()]
    return Table(f"./pants package {TARGET}", "seconds", "less", tuple(series))


def tree_bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def start(worker: Worker, venv: Path, rounds: int) -> Table:
    """Seconds until the program has started, with empty caches and with filled ones."""
    venvs = worker.directory / "kept"
    worker.run_py(venvs, {})
    asked: dict[tuple[str, str], Callable[[], None]] = {
        ("caches empty", OURS): worker.cold_bundle,
        ("caches empty", PIP): worker.cold_pip,
        ("caches empty", IMAGE): lambda: worker.cold_image(venv),
        ("installed before", OURS): lambda: worker.run_py(venvs, {}),
        ("installed before", "python -m in an environment"): lambda: worker.program(venv),
    }
    found = interleave({k: lambda job=job: timed(job) for k, job in asked.items()}, rounds)
    series = [Series(case, name, seconds) for (case, name), seconds in found.items()]
    return Table("Start on a worker", "seconds", "less", tuple(series))


def main(flags: argparse.Namespace, load: float) -> None:
    with contextlib.ExitStack() as keep:
        root, directory = (
            Path(keep.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)
        )
        workspace = Workspace(Path.cwd(), root)
        workspace.commit()
        keep.callback(workspace.stop)
        built = build(workspace, flags.rounds)
        packed = root / "dist/bundles/base-cpu"
        worker, venv = Worker(packed, directory), directory / "environment"
        worker.pip(venv, {})
        size = packed.with_name("base-cpu.tar.gz").stat().st_size / 1e6
        sizes = {"the bundle": size, "its environment, installed": tree_bytes(venv) / 1e6}
        versions = json.loads((packed / "bundle.json").read_text())["versions"]
        started = start(worker, venv, flags.rounds)
    # The bundle's worker fetches the environment: one does not replace the other.
    series = tuple(Series(case, OURS, (megabytes,)) for case, megabytes in sizes.items())
    weighed = Table("Size", "MB", "less", series)
    ours, plain = started.case("installed before")
    aims = [
        Aim("bundle, MB", spread([size]), "at most", THIN),
        Aim(
            "start, installed before: seconds more than python -m",
            spread([a - b for a, b in zip(ours.values, plain.values, strict=True)]),
            "at most",
            0.5,
        ),
        Aim(
            "start, caches empty: against pip install",
            spread(advantage(*started.case("caches empty")[:2], "less")),
            "at least",
            1.0,
        ),
    ]
    finish(flags, [built, weighed, started], load=load, aims=aims, versions=versions)


if __name__ == "__main__":
    run("bundle", main, flags_of("bundle", __doc__))
