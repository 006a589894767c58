"""The site of an archive with many experiments: how long, how large, how much memory.

./pants run tests/benchmarks:archive -- --experiments 60 --json archive.json

Copies this workspace, and into it that many copies of base with one line changed in each, an entry
of the ledger and three recorded runs. Builds the site with nothing cached, after an edit of one
entry, and after an edit of one model.

The memory is that of the largest process that tools/site/ and MkDocs need, as it is seen every
20 ms: the daemon serves all of Pants, and the processes that run a variant's plan hold JAX.
"""

import argparse
import json
import random
import secrets
import shutil
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.benchmarks.measure import (
    Aim,
    BenchmarkError,
    Series,
    Table,
    finish,
    flags_of,
    run,
    spread,
    timed,
)
from tests.benchmarks.workspace import Site
from tests.workspace.workspace import Workspace
from tools.ledger.ledger import CHANGE_BUCKETS

SEEDS = (0, 1, 2)
# By the number of experiments: seconds with nothing cached and after an edit, MB of the largest
# process, MB on disk.
AIMS = {60: (60.0, 6.0, None, None), 200: (None, None, 100.0, None), 300: (None, None, None, 60.0)}
OWN_PROCESSES = ("tools.site.", "mkdocs")
# What differs in each copy of base.
LINE = "d_ff: Count = 512"
RECORDED = "docs/reports/runs/base/base-jax012-seed{}.json"
# Whose pinned origin is the base that was recorded.
ORIGIN = "docs/reports/runs/moe/moe-jax012-seed0.json"
ENTRY = """\
# {name}

- path: experiments/grug/{name}
- origin: {origin}
- status: active
- bucket: {bucket}
- purpose: whether {name} learns more than {origin} at equal tokens, with one number of the model
  changed and all else as it was
- verdict: {verdict}
"""
VERDICTS = (
    "better at tiny size, to be tried at 25m",
    "no difference at tiny size",
    "worse",
    "pending",
)
NAMES = ("swiglu", "qk_norm", "wide_heads", "z_loss", "muon", "rope_base", "warm_restarts", "init")


def name_of(number: int) -> str:
    """The name of an experiment, as people give them."""
    return f"{NAMES[number % len(NAMES)]}_{number:03d}"


def add_experiments(workspace: Workspace, count: int) -> None:
    """That many experiments, in trees of origins: code, entry and runs."""
    chance = random.Random(0)
    names = ["base"]
    for number in range(count):
        name, origin = name_of(number), chance.choice(names[:1] * 3 + names[-6:])
        copy = workspace.fork(name)
        model = copy / "model.py"
        before = model.read_text()
        if LINE not in before:
            raise BenchmarkError(f"{model.name} of base has no line {LINE!r} to change")
        # Pants' cache and ours serve all workspaces: no text may be one that they have seen.
        own = f"{LINE} + {number + 1}  # {secrets.token_hex(8)}"
        model.write_text(before.replace(LINE, own, 1))
        entry = workspace.root / f"docs/reports/variants/{name}.md"
        entry.parent.mkdir(parents=True, exist_ok=True)
        bucket, verdict = chance.choice(CHANGE_BUCKETS), chance.choice(VERDICTS)
        entry.write_text(ENTRY.format(name=name, origin=origin, bucket=bucket, verdict=verdict))
        add_runs(workspace.root, name, chance)
        names.append(name)


def add_runs(root: Path, name: str, chance: random.Random) -> None:
    """Runs like those of base, better or worse by up to a few per cent."""
    offset = chance.gauss(0, 0.012)
    origin = json.loads(Path(ORIGIN).read_text())["origin"]
    for seed in SEEDS:
        run_ = json.loads(Path(RECORDED.format(seed)).read_text())
        noise = offset + chance.gauss(0, 0.003)
        run_ |= {"variant": name, "run": f"{name}-{seed}", "origin": origin}
        # Loss and bits per byte are over the same text: their ratio stays.
        run_["heldout"] = [
            [*point[:3], round(point[3] * (1 + noise), 5), round(point[4] * (1 + noise), 5)]
            for point in run_["heldout"]
        ]
        run_["final"]["heldout_loss"], run_["final"]["heldout_bpb"] = run_["heldout"][-1][3:]
        path = root / f"docs/reports/runs/{name}/{name}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in run_.items()
        )
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def populate(root: Path, experiments: int) -> Site:
    """A copy of this workspace with so many experiments more, committed."""
    workspace = Workspace(Path.cwd(), root)
    for name in ("docs", "experiments/grug/moe", "experiments/speedrun"):
        shutil.copytree(name, root / name, dirs_exist_ok=True)
    add_experiments(workspace, experiments)
    workspace.commit()
    return Site(workspace)


def size(directory: Path) -> float:
    """MB of all files below it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


@contextmanager
def watched(site: Site) -> Generator[list[int]]:
    """The bytes of the largest process of its own that each look found, while the block runs."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            with suppress(psutil.Error, ValueError):  # the daemon, or a process, comes or goes
                for process in psutil.Process(site.daemon()).children(recursive=True):
                    with suppress(psutil.Error):
                        if any(name in " ".join(process.cmdline()) for name in OWN_PROCESSES):
                            seen.append(process.memory_info().rss)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield seen
    finally:
        ended.set()
        watch.join()


def build(site: Site, rounds: int) -> tuple[dict[str, tuple[float, ...]], dict[str, float | str]]:
    """Seconds of each kind of build, and further facts."""

    store = site.workspace.root.with_name("store")  # Pants' cache: empty at first, then kept

    def package() -> None:
        site.pants(f"--local-store-dir={store}", "package", "docs:site")

    name = name_of(0)
    entry = site.workspace.root / f"docs/reports/variants/{name}.md"
    entry_edits, model_edits = [], []
    try:
        with watched(site) as seen:
            cold = timed(package)
        built = size(site.workspace.root / "dist/site")
        entry.write_text(f"{entry.read_text()}\n\n### Notes\n\n")
        for turn in range(rounds):
            entry.write_text(f"{entry.read_text()}Turn {turn}.\n")
            entry_edits.append(timed(package))
            site.workspace.edit(name)
            model_edits.append(timed(package))
        kinds = {
            "nothing cached": (cold,),
            "after an edit of one entry": tuple(entry_edits),
            "after an edit of one model": tuple(model_edits),
        }
        facts: dict[str, float | str] = {
            "MB on disk": built,
            "largest process, MB": max(seen) / 1e6,
            "daemon, GiB": site.memory(),
        }
        return kinds, facts
    finally:
        site.workspace.stop()


def aims_of(
    count: int, kinds: dict[str, tuple[float, ...]], facts: dict[str, float | str]
) -> list[Aim]:
    """What a build of that many experiments is to reach."""
    cold, edit, largest, disk = AIMS.get(count, (None,) * 4)
    found = (
        ("nothing cached, seconds", kinds["nothing cached"], cold),
        ("after an edit of one entry, seconds", kinds["after an edit of one entry"], edit),
        ("after an edit of one model, seconds", kinds["after an edit of one model"], edit),
        ("largest process, MB", [float(facts["largest process, MB"])], largest),
        ("on disk, MB", [float(facts["MB on disk"])], disk),
    )
    return [
        Aim(f"{count} experiments, {what}", spread(values), "at most", bound)
        for what, values, bound in found
        if bound is not None
    ]


def main(flags: argparse.Namespace, load: float) -> None:
    series, aims = [], []
    for count in (2,) if flags.quick else flags.experiments:
        with tempfile.TemporaryDirectory() as directory:
            (root := Path(directory, "workspace")).mkdir()
            kinds, facts = build(populate(root, count), flags.rounds)
        cold = "nothing cached"
        series += [
            Series(
                f"{count} experiment{'s' * (count > 1)}, {kind}",
                "",
                seconds,
                facts if kind == cold else {},
            )
            for kind, seconds in kinds.items()
        ]
        aims += aims_of(count, kinds, facts)
    finish(flags, [Table("The site", "seconds", "less", tuple(series))], load=load, aims=aims)


if __name__ == "__main__":
    parser = flags_of("archive", __doc__)
    parser.add_argument(
        "--experiments", nargs="+", type=int, default=[60], help="numbers of experiments (60)"
    )
    run("archive", main, parser)
