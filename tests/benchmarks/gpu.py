"""The training step on one GPU, base and moe, beside the same model in PyTorch.

./pants run tests/benchmarks:gpu -- --jax-python PATH --torch-python PATH --json OUT

Without a GPU it says so and measures nothing. --limit-s keeps it under ten minutes: a case is begun
only if as much time is left as the longest took.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.measure import BenchmarkError, flags_of, positive, run
from tests.benchmarks.step import Peer, Race, Setup, add_torch_flag

# Rows of a batch: 32,768 tokens, which fill a large card.
ROWS = {"130m": 16, "350m": 16, "1b": 8}
COMPILED: Peer = ("PyTorch, torch.compile", "tests.benchmarks.peer_torch", ("--compile",))
SIZE = 8192
MFU = {"1b": 0.55}


def gpu() -> str:
    """Name of the first GPU; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""


def setup_of(preset: str, variant: str, flags: argparse.Namespace) -> Setup:
    words = ["--variant", variant, "--preset", preset, "--rows", str(ROWS[preset])]
    return Setup(
        [*words, "--dtype", "bfloat16", "--whole"],
        name=f"grug {variant}",
        dtype="bfloat16",
        size=SIZE,
        flags=["--gpu"],
        rulers=["xla", "torch"],
        torch=flags.torch_python,
        python=flags.jax_python,
    )


def main(flags: argparse.Namespace, load: float) -> None:
    card = gpu()
    if not card:
        print("gpu: skipped: nvidia-smi finds no GPU here")
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = "0"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others live on the card, too
    race = Race(flags.rounds, flags.steps_per_round)
    began, longest = time.monotonic(), 0.0
    for case in ((preset, variant) for preset in flags.presets for variant in ("base", "moe")):
        name, first = ", ".join(case), time.monotonic()
        left = flags.limit_s - (first - began)
        if left < longest:
            race.missing[name] = f"the longest so far took {longest:.0f} s, {left:.0f} s were left"
            continue
        peers, share = ([COMPILED], MFU.get(case[0])) if case[1] == "base" else ([], None)
        try:
            race.add(name, setup_of(*case, flags), peers, ahead=1.0, share=share)
        except BenchmarkError as error:
            race.missing[name] = str(error)
        longest = max(longest, time.monotonic() - first)
    if not race.series:
        raise BenchmarkError(f"nothing could be measured: {race.missing}")
    race.finish(flags, load, card)


if __name__ == "__main__":
    parser = flags_of("gpu", __doc__)
    parser.add_argument("--presets", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps-per-round", type=positive, default=3, help="in each round (3)")
    parser.add_argument("--limit-s", type=positive, default=540, help="seconds in all (540)")
    parser.add_argument(
        "--jax-python",
        type=Path,
        default=Path(sys.executable),
        metavar="PATH",
        help="interpreter that has JAX for the GPU, such as that of a bundle's environment",
    )
    add_torch_flag(parser)
    run("gpu", main, parser)
