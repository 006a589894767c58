"""Base and moe on one GPU, in one command of nine minutes: numerics, speed, choices, a profile.

In the workspace, with a network, once (about 40 MB, in a directory that git ignores):

    ./pants run tests/benchmarks:gpu -- --carry dist/carried

On the machine with the GPU, in a copy of the tree with dist/carried, by its own Python, which has
JAX for the GPU and PyTorch; without Pants and without a network:

    python3 -m tests.benchmarks.gpu --carried dist/carried --json OUT/gpu.json

OUT then has gpu.json, gpu.log and gpu.xplane.pb.gz. Back in the workspace, gpu.json becomes
tests/benchmarks/results/gpu.json, and `./pants run tests/benchmarks:page` shows it.

Each stage is a process with a limit: one that hangs or crashes is recorded, and the others run.
gpu.json is written anew whenever something was found. Without a GPU nothing is measured; `--quick`
runs every stage on the CPU, at small sizes.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.carried import unpack
from tests.benchmarks.contest import ROOT, child_environment
from tests.benchmarks.measure import flags_of, positive, report_of, run, show
from tests.benchmarks.page import render_table
from tests.benchmarks.stages import Stage, Stages, ending_on
from tests.benchmarks.step import add_torch_flag

LARGE_MIB = 120_000  # of a card that takes whole batches, as an H200 does; others get half the rows
SMALL_ROWS = {"350m": 4, "1b": 2}
QUICK_SLOWER = 6  # times the limits, where --quick runs on a few cores


def card() -> tuple[str, int]:
    """Name and MiB of the first GPU; ("", 0) where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "", 0
    name, _, memory = done.stdout.partition("\n")[0].rpartition(",")
    return (name.strip(), int(memory)) if done.returncode == 0 and memory.strip() else ("", 0)


def stages(flags: argparse.Namespace, memory: int, trace: Path | None) -> list[Stage]:
    """What is run, in this order; the limits are for a large card and 16 cores, 520 s in all."""
    common = ["--json", "{out}", "--rounds", str(flags.rounds)]

    def steps(name: str, limit_s: float, preset: str, *words: str) -> Stage:
        label = ["--label", f"tiny for {preset}"] if flags.quick else []
        preset = "tiny" if flags.quick else preset
        small = not flags.quick and memory < LARGE_MIB
        rows = ["--rows", str(SMALL_ROWS[preset])] if small else []
        command = [str(flags.jax_python), "-m", "tests.benchmarks.gpu_steps", *common]
        command += ["--limit-s", "{limit}", "--preset", preset, *label, *rows]
        command += ["--quick"] if flags.quick else ["--gpu"]
        return Stage(name, limit_s, [*command, *words, "--torch-python", str(torch)])

    torch = flags.torch_python or flags.jax_python
    quick = ["--quick"] * flags.quick
    profile = [str(flags.jax_python), "-m", "tests.benchmarks.gpu_profile", *common, *quick]
    profile += ["--so-far", "{so_far}", "--preset", "tiny" if flags.quick else "1b"]
    if not flags.quick and memory < LARGE_MIB:
        profile += ["--rows", str(SMALL_ROWS["1b"])]
    numerics = [str(flags.jax_python), "-m", "tests.benchmarks.gpu_numerics", *common, *quick]
    plan = [
        Stage("numerics", 70, [*numerics, "--limit-s", "{limit}"]),
        steps("350m against PyTorch", 100, "350m", "--peers", "compile", "flex"),
        steps("1b against PyTorch", 130, "1b", "--peers", "compile", "flex"),
        steps("moe", 70, "350m", "--variant", "moe"),
        steps("choices at 1b", 100, "1b", "--choices", "--so-far", "{so_far}"),
        Stage("profile at 1b", 50, [*profile, *(["--trace", str(trace)] if trace else [])]),
    ]
    slower = QUICK_SLOWER if flags.quick else 1
    return [dataclasses.replace(stage, limit_s=slower * stage.limit_s) for stage in plan]


def surroundings(site: Path, scratch: Path, python: Path) -> dict[str, str]:
    """Variables of the stages: the carried packages first, and one cache of compiled programs."""
    env = child_environment(own=python == Path(sys.executable))
    env["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT), env["PYTHONPATH"]])
    return env | {
        "CUDA_VISIBLE_DEVICES": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the others live on the card, too
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "PYTHONUNBUFFERED": "1",
    }


def main(flags: argparse.Namespace, load: float) -> None:
    if flags.carry:
        from tests.benchmarks.carry import carry  # it needs more than a Python with JAX has

        return carry(flags.carry, flags.python_version)
    name, memory = card()
    if not name and not flags.quick:
        print("gpu: skipped: nvidia-smi finds no GPU here")
        return None
    ends = time.monotonic() + flags.limit_s * (QUICK_SLOWER if flags.quick else 1)
    ending_on(signal.SIGTERM, signal.SIGHUP)
    with contextlib.ExitStack() as keep:
        scratch = Path(keep.enter_context(tempfile.TemporaryDirectory()))
        out = flags.json or scratch / "gpu.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        empty = report_of(flags, [], load=load, accelerator=name)
        if flags.carried:
            commit = unpack(flags.carried, scratch / "site", flags.jax_python)
            if empty.commit == "unknown":
                empty = dataclasses.replace(empty, commit=commit)
        (scratch / "parts").mkdir()
        runner = Stages(
            empty,
            out,
            keep.enter_context(out.with_suffix(".log").open("w")),
            scratch / "parts",
            surroundings(scratch / "site", scratch, flags.jax_python),
            ends,
        )
        report = runner.run(stages(flags, memory, out.with_suffix(".xplane.pb.gz")))
    *tables, last = report.tables
    show(dataclasses.replace(report, tables=tuple(tables)))
    print(f"\n{last.title}\n\n{render_table(last)}")
    return None


if __name__ == "__main__":
    parser = flags_of("gpu", __doc__)
    parser.set_defaults(rounds=5)
    parser.add_argument("--limit-s", type=positive, default=540, help="seconds in all (540)")
    parser.add_argument(
        "--carry",
        type=Path,
        metavar="DIR",
        help="fill DIR with what such a machine lacks, and stop",
    )
    parser.add_argument(
        "--python-version", default="3.12", help="of that machine's Python, for --carry (3.12)"
    )
    parser.add_argument("--carried", type=Path, metavar="DIR", help="directory that --carry filled")
    parser.add_argument(
        "--jax-python",
        type=Path,
        default=Path(sys.executable),
        metavar="PATH",
        help="interpreter that has JAX for the GPU (this one)",
    )
    add_torch_flag(parser)
    run("gpu", main, parser)
