"""The site of an archive with many experiments: how long, how large, how much memory.

./pants run tests/benchmarks:archive -- --experiments 60 --json archive.json

Copies this workspace, and into it that many copies of base with one line changed in each, an entry
of the ledger and three recorded runs. Builds the site with nothing cached, after an edit of one
entry, and after an edit of one model.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks.measure import Aim, Series, Table, finish, flags_of, run, spread, timed
from tests.benchmarks.workspace import Site
from tests.workspace.workspace import Workspace
from tools.ledger.ledger import CHANGE_BUCKETS

SEEDS = (0, 1, 2)
# The number of experiments for which there are aims.
AIMED = 60
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
        model.write_text(
            model.read_text().replace(LINE, f"{LINE} + {number + 1}", 1) + f"# {token_hex(8)}\n"
        )
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


def build(site: Site, rounds: int) -> tuple[float, list[float], dict[str, float | str]]:
    """Seconds with nothing cached, seconds after each edit of an entry, and further facts."""

    def package() -> None:
        site.pants("--no-local-cache", "package", "docs:site")

    try:
        cold = timed(package)
        built = size(site.workspace.root / "dist/site")
        entry = site.workspace.root / f"docs/reports/variants/{name_of(0)}.md"
        entry.write_text(f"{entry.read_text()}\n\n### Notes\n\n")
        edits = []
        for turn in range(rounds):
            entry.write_text(f"{entry.read_text()}Turn {turn}.\n")
            edits.append(timed(lambda: site.pants("package", "docs:site")))
        return cold, edits, {"MB on disk": built, "daemon, GiB": site.memory()}
    finally:
        site.workspace.stop()


def main(flags: argparse.Namespace, load: float) -> None:
    series, aims = [], []
    for count in (2,) if flags.quick else flags.experiments:
        with tempfile.TemporaryDirectory() as directory:
            cold, edits, facts = build(populate(Path(directory), count), flags.rounds)
        case = f"{count} experiments"
        series += [
            Series(case, "nothing cached", (cold,), facts),
            Series(case, "after an edit of one entry", tuple(edits), facts),
        ]
        if count == AIMED:
            aims += [
                Aim(f"{case}, nothing cached, seconds", spread([cold]), "at most", 60.0),
                Aim(f"{case}, after an edit, seconds", spread(edits), "at most", 6.0),
            ]
    finish(flags, [Table("The site", "seconds", "less", tuple(series))], load=load, aims=aims)


if __name__ == "__main__":
    parser = flags_of("archive", __doc__)
    parser.add_argument(
        "--experiments", nargs="+", type=int, default=[60], help="numbers of experiments (60)"
    )
    run("archive", main, parser)
