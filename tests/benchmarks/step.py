"""The training step on this CPU, beside the same model in other libraries.

./pants run tests/benchmarks:step -- --rounds 7 --json tests/benchmarks/results/step.json
"""

import argparse
import contextlib
import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.benchmarks.contest import (
    CHECKED_STEPS,
    NO_PACKAGES,
    NotMeasured,
    Worker,
    check_agreement,
    start,
    torch_python,
)
from tests.benchmarks.measure import (
    Aim,
    BenchmarkError,
    Series,
    Table,
    against_best,
    finish,
    flags_of,
    interleave,
    positive,
    run,
    spread,
)
from tests.benchmarks.worker import Job

OURS, MATMUL = "tests.benchmarks.ours", "tests.benchmarks.matmul"
Peer = tuple[str, str, tuple[str, ...]]
PEERS: dict[str, Peer] = {
    "nnx": ("Flax NNX", "tests.benchmarks.peer_nnx", ()),
    "eager": ("PyTorch, eager", "tests.benchmarks.peer_torch", ()),
    "compile": ("PyTorch, torch.compile", "tests.benchmarks.peer_torch", ("--compile",)),
}
LACKING = {("nnx", "bfloat16"), ("numpy", "bfloat16")}  # what is not written, or has no products
SIZE = 2048  # rows and columns of the products: larger ones are not faster on two cores
AHEAD, SHARE = 1.2, 0.6


@dataclasses.dataclass(frozen=True)
class Setup:
    """How all are started: the template's flags, the numbers' type, the products' size."""

    ours: Sequence[str]
    name: str = "grug base"
    dtype: str = "float32"
    size: int = SIZE
    flags: Sequence[str] = ()
    """Of peers and products."""
    rulers: Sequence[str] = ("numpy", "xla", "torch")
    """Libraries whose products are taken; the best is the machine's peak."""
    torch: Path | None = None
    python: Path = Path(sys.executable)
    """What runs all but PyTorch."""
    products: int = CHECKED_STEPS
    """Matrix products in each round."""
    agreeing: int = CHECKED_STEPS
    """First steps in which a peer must agree with ours."""
    lenient: bool = False
    """Whether a peer that doesn't is left out; else there is no result."""
    side_by_side: bool = False
    """Whether all compile at the same time, which takes many cores."""
    ready_by: float = math.inf
    """time.monotonic() until which others than ours must be ready; else they are left out."""


def start_all(
    setup: Setup, peers: Sequence[Peer], job: Job, keep: contextlib.ExitStack
) -> tuple[list[Worker], list[Worker], dict[str, str]]:
    """Contestants with the template first, matrix products, and why any of them is missing.

    Raises:
        BenchmarkError: ours does not run, or a peer is not the same model.
    """
    missing: dict[str, str] = {}

    def begin(name: str, module: str, *words: str) -> list[Worker]:
        print(f"starting {name}", file=sys.stderr)
        is_torch = "torch" in (module.rpartition("_")[2], words[0] if words else "")
        env = NO_PACKAGES if is_torch else None
        try:
            python = torch_python(setup.torch) if is_torch else str(setup.python)
            worker = start(name, module, job, keep, *words, python=python, env=env, wait=False)
            if module == OURS:  # it writes what the others read
                worker.versions = worker.read()["versions"]
            else:
                worker.until = setup.ready_by
            worker.ask(CHECKED_STEPS)  # this compiles, too
            return [worker] if setup.side_by_side else ready([worker], missing)
        except NotMeasured as why:
            missing[name] = str(why)
            return []

    found = begin(setup.name, OURS, *["--write"] * bool(peers), *setup.ours)
    begun: list[Worker] = []
    rulers: list[Worker] = []
    if found:
        for name, module, words in peers:
            begun += begin(name, module, *words, *setup.flags)
        for library in setup.rulers:
            words = (library, str(setup.size), setup.dtype, *setup.flags)
            rulers += begin(f"matmul by {library}", MATMUL, *words)
    if not (found := ready(found, missing)):
        raise BenchmarkError(f"{setup.name}: {missing[setup.name]}")
    begun, rulers = ready(begun, missing), ready(rulers, missing)
    return found + same_models(setup, found[0], begun, missing), rulers, missing


def ready(workers: Sequence[Worker], missing: dict[str, str]) -> list[Worker]:
    """Those that have done their first steps; the others are put into `missing`."""
    found = []
    for worker in workers:
        try:
            worker.versions = worker.versions or worker.read()["versions"]
            if "losses" not in worker.answer:
                worker.read()
            worker.until = math.inf
            found.append(worker)
        except NotMeasured as why:
            missing[worker.name] = str(why)
    return found


def same_models(
    setup: Setup, ours: Worker, peers: Sequence[Worker], missing: dict[str, str]
) -> list[Worker]:
    """The peers that agree with ours; see Setup about the others."""
    found = []
    for peer in peers:
        try:
            check_agreement(ours, peer, setup.dtype, setup.agreeing)
            found.append(peer)
        except BenchmarkError as differs:
            if not setup.lenient:
                raise
            missing[peer.name] = str(differs)
    return found


def compete(
    workers: Sequence[Worker],
    rulers: Sequence[Worker],
    rounds: int,
    steps: int,
    setup: Setup,
    missing: dict[str, str],
    until: float = math.inf,
) -> tuple[dict[str, tuple[float, ...]], list[float]]:
    """Seconds of `steps` steps of each in every round, and the best product's FLOP/s in it.

    Who ends in its first turn, such as for want of memory, is put into `missing`.
    """
    asked: dict[str, Callable[[], float]] = {w.name: lambda w=w: w.seconds(steps) for w in workers}
    asked |= {w.name: lambda w=w: w.seconds(setup.products) for w in rulers}
    for name, ask in list(asked.items()):  # buffers and clocks settle
        try:
            ask()
        except NotMeasured as why:
            del asked[name]
            missing[name] = str(why)
    seconds = interleave(asked, rounds, until=until)
    products = [seconds.pop(ruler.name) for ruler in rulers if ruler.name in seconds]
    work = setup.products * 2 * setup.size**3
    return seconds, [work / min(times) for times in zip(*products, strict=True)]


def series_of(
    case: str, worker: Worker, seconds: Sequence[float], peak: Sequence[float], config: dict
) -> tuple[Series, list[float]]:
    """Its tokens/s by the seconds a step took in each round, and its shares of the peak."""
    tokens = config["batch_size"] * config["sequence_length"]
    rates = tuple(tokens / s for s in seconds)
    flops = [rate * config["flops_per_token"] for rate in rates]
    facts = {
        "peak memory, MiB": worker.answer["peak_bytes"] / 2**20,
        "GFLOP/s": spread(flops).median / 1e9,
    }
    shares = [done / best for done, best in zip(flops, peak, strict=False)]
    if shares:
        facts["% of the peak"] = 100 * spread(shares).median
    return Series(case, worker.name, rates, facts), shares


@dataclasses.dataclass
class Race:
    """What was found so far, over presets."""

    TITLE: ClassVar[str] = "Training step"

    rounds: int
    steps: int
    series: list[Series] = dataclasses.field(default_factory=list)
    aims: list[Aim] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    peaks: list[float] = dataclasses.field(default_factory=list)
    """FLOP/s of the best matrix product in each round of the newest case, if one was taken."""
    until: float = math.inf
    """No round is begun that would not end before time.monotonic() is this."""

    def table(self) -> Table:
        return Table(self.TITLE, "tokens/s", "more", tuple(self.series))

    def add(
        self,
        case: str,
        setup: Setup,
        peers: Sequence[Peer],
        *,
        ahead: float,
        share: float | None = None,
    ) -> None:
        """Measures a case, which should be `ahead` times the best peer and reach that `share`.

        Raises:
            BenchmarkError: ours does not run, or a peer is not the same model.
        """
        with contextlib.ExitStack() as keep:
            job = Job(Path(keep.enter_context(tempfile.TemporaryDirectory())))
            workers, rulers, missing = start_all(setup, peers, job, keep)
            rounds = (self.rounds, self.steps, setup, missing, self.until)
            seconds, peak = compete(workers, rulers, *rounds)
            config = job.config
        if setup.name in missing:
            raise BenchmarkError(f"{setup.name}: {missing[setup.name]}")
        self.peaks = peak or self.peaks
        self.missing |= {f"{case}: {name}": why for name, why in missing.items()}
        workers = [worker for worker in workers if worker.name in seconds]
        for worker in workers:
            a_step = [s / self.steps for s in seconds[worker.name]]
            one, shares = series_of(case, worker, a_step, peak, config)
            self.series.append(one)
            self.versions |= worker.versions
            if worker is workers[0] and share and shares:
                what = f"{case}: share of the matmul peak"
                self.aims.append(Aim(what, spread(shares), "at least", share))
        if len(workers) > 1:
            self.aims.append(against_best(self.table(), case, f"{case}: tokens/s", ahead))

    def found(self) -> dict[str, Any]:
        """What a report has besides tables."""
        return {"aims": self.aims, "versions": self.versions, "missing": self.missing}


def main(flags: argparse.Namespace, load: float) -> None:
    race = Race(flags.rounds, flags.steps_per_round)
    for dtype in flags.dtypes:
        for preset in flags.presets:
            setup = Setup(
                ["--preset", preset, "--dtype", dtype],
                dtype=dtype,
                size=SIZE // (4 if flags.quick else 1),
                rulers=[name for name in Setup.rulers if (name, dtype) not in LACKING],
                torch=flags.torch_python,
            )
            case = preset if dtype == "float32" else f"{preset}, {dtype}"
            peers = [PEERS[name] for name in flags.peers if (name, dtype) not in LACKING]
            race.add(case, setup, peers, ahead=AHEAD, share=SHARE)
    finish(flags, [race.table()], load=load, **race.found())


def add_torch_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--torch-python",
        type=Path,
        metavar="PATH",
        help="interpreter that has torch and numpy (else an environment is made once)",
    )


if __name__ == "__main__":
    parser = flags_of("step", __doc__)
    parser.add_argument("--presets", nargs="+", choices=["tiny", "25m"], default=["tiny", "25m"])
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=dtypes, help="both of them")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="all of them"
    )
    parser.add_argument("--steps-per-round", type=positive, default=4, help="in each round (4)")
    add_torch_flag(parser)
    run("step", main, parser)
