"""The workspace with few and many variants, beside the same jobs done without Pants.

./pants run tests/benchmarks:workspace -- --json tests/benchmarks/results/workspace.json

Copies this workspace several times; all but base and moe are copies of base with one quick test.
Times are of whole commands, after an edit that nothing has seen before.
"""

import argparse
import contextlib
import difflib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.benchmarks.contest import NotMeasured, child_environment, environment
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

SIZES = (5, 50, 200)
FLAT = 2.0  # times as long with the most variants as with the fewest
PANTS, PYTEST = "./pants, the changed variant", "pytest, all variants"
MKDOCS = ["mkdocs-material==9.8.1"]
SKIPPED = ("--contract-skip",)  # it trains for minutes, with or without Pants
TEST = """\
import jax

from experiments.grug.{name}.model import MESH_AXES, ModelConfig, Transformer


def test_it():
    axes = len(MESH_AXES)
    explicit = (jax.sharding.AxisType.Explicit,) * axes
    with jax.set_mesh(jax.make_mesh((1,) * axes, MESH_AXES, axis_types=explicit)):
        make = lambda key: Transformer.init(ModelConfig(), key=key)
        assert jax.eval_shape(make, jax.random.key(0)).head.shape
"""


def populate(root: Path, variants: int) -> Workspace:
    """Base, moe and copies of base, `variants` in all, each with one quick test; and the docs."""
    workspace = Workspace(Path.cwd(), root)
    for name in ("docs", "experiments/grug/moe", "experiments/speedrun"):
        shutil.copytree(name, root / name, dirs_exist_ok=True)
    for name in ("base", "moe"):
        folder = root / "experiments/grug" / name
        for test in [*folder.glob("test_*.py"), folder / "conftest.py"]:
            test.unlink()
        (folder / "test_start.py").write_text(TEST.format(name=name))
    for number in range(2, variants):
        workspace.fork(f"v{number:03d}")
    workspace.commit()
    return workspace


class Site:
    """One workspace at work: what can be asked of it, with Pants and without."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace

    def pants(self, *command: str) -> None:
        done = self.workspace.pants(*command)
        if done.returncode:
            raise BenchmarkError(f"./pants {' '.join(command)} failed: {done.stderr[-2000:]}")

    def python(self, *command: str, python: Path = Path(sys.executable)) -> None:
        own = python == Path(sys.executable)
        done = subprocess.run(
            [python, "-P", *command],
            cwd=self.workspace.root,
            env=child_environment(own=own) | {"PYTHONPATH": self.path() if own else ""},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-500:]
            raise BenchmarkError(f"{' '.join(command)} failed: {said}")

    def path(self) -> str:
        """The copy's sources before whatever this process imports."""
        return f"{self.workspace.root}:{child_environment()['PYTHONPATH']}"

    def edited(self, command: Callable[[], None]) -> float:
        self.workspace.edit("moe")
        return timed(command)

    def daemon(self) -> int:
        """Its process. Raises ValueError where there is none, or not yet."""
        (pid,) = self.workspace.root.glob(".pids/*/pantsd/pid")
        return int(pid.read_text())

    def memory(self) -> float:
        """GiB that the daemon holds."""
        return psutil.Process(self.daemon()).memory_info().rss / 2**30


def by_size(sites: dict[int, Site], rounds: int) -> tuple[list[Table], list[Aim]]:
    """What grows with the number of variants: verdicts and listings."""
    tests = ["-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    jobs: dict[tuple[int, str, str], Callable[[], None]] = {}
    for n, site in sites.items():
        changed = ("--changed-since=HEAD", *SKIPPED, "test")
        jobs[n, "verdict", PANTS] = lambda site=site, changed=changed: site.pants(*changed)
        jobs[n, "verdict", PYTEST] = lambda site=site: site.python(*tests, "experiments")
        jobs[n, "variants", "./pants variants"] = lambda site=site: site.pants("variants")
    for job in jobs.values():
        job()  # starts daemons, fills caches
    asked = {key: lambda k=key, job=job: sites[k[0]].edited(job) for key, job in jobs.items()}
    found = interleave(asked, rounds)
    tables, aims = [], []
    titles = {"verdict": "From an edit to its verdict", "variants": "./pants variants"}
    for job, title in titles.items():
        series = []
        for (n, kind, name), seconds in found.items():
            if kind == job:
                facts = {"daemon, GiB": sites[n].memory()} if name.startswith("./") else {}
                series.append(Series(f"{n} variants", name, seconds, facts))
        tables.append(Table(title, "seconds", "less", tuple(series)))
        ours = [one for one in series if one.name.startswith("./")]
        if len(ours) > 1:
            growth = spread(advantage(ours[0], ours[-1], "less"))
            what = f"{title}: {ours[-1].case} against {ours[0].case}"
            aims.append(Aim(what, growth, "at most", FLAT))
    return tables, aims


def html_diff(root: Path, out: Path) -> None:
    """What one writes without a tool: difflib's page of each file that both variants have."""
    base, moe = (root / "experiments/grug" / name for name in ("base", "moe"))
    pages = [
        difflib.HtmlDiff().make_file(
            old.read_text().splitlines(), (moe / old.name).read_text().splitlines()
        )
        for old in sorted(base.glob("*.py"))
        if (moe / old.name).exists()
    ]
    out.write_text("\n".join(pages))


def pages(site: Site, rounds: int, directory: Path) -> tuple[Table, dict[str, str]]:
    """Diff and site, warm after an edit and with nothing cached, and their plain counterparts."""
    cold = ("--no-pantsd", "--no-local-cache")
    diff = ("diff", "--diff-against=experiments/grug/base", "experiments/grug/moe")
    package = ("package", "docs:site")
    jobs: dict[tuple[str, str], Callable[[], None]] = {
        ("diff", "./pants diff"): lambda: site.pants(*diff),
        ("diff", "difflib.HtmlDiff"): lambda: html_diff(
            site.workspace.root, directory / "diff.html"
        ),
        ("diff, nothing cached", "./pants diff"): lambda: site.pants(*cold, *diff),
        ("site", "./pants package docs:site"): lambda: site.pants(*package),
        ("site, nothing cached", "./pants package docs:site"): lambda: site.pants(*cold, *package),
    }
    missing = {}
    try:
        python = environment("mkdocs", MKDOCS, "import material, mkdocs")
        jobs["site", "mkdocs alone"] = lambda: site.python(
            "-m",
            "mkdocs",
            "build",
            "-q",
            "--no-strict",
            "-d",
            str(directory / "site"),
            python=python,
        )
    except NotMeasured as why:
        missing["mkdocs alone"] = str(why)
    for job in jobs.values():
        job()
    asked = {key: lambda job=job: site.edited(job) for key, job in jobs.items()}
    found = interleave(asked, rounds)
    series = [Series(case, name, seconds) for (case, name), seconds in found.items()]
    series.sort(key=lambda one: one.case)  # a stable sort: ours stays first
    return Table("Pages", "seconds", "less", tuple(series)), missing


def main(flags: argparse.Namespace, load: float) -> None:
    with contextlib.ExitStack() as keep:
        sites = {}
        for n in (3,) if flags.quick else sorted(flags.sizes):
            root = Path(keep.enter_context(tempfile.TemporaryDirectory()))
            sites[n] = Site(populate(root, n))
            keep.callback(sites[n].workspace.stop)
        directory = Path(keep.enter_context(tempfile.TemporaryDirectory()))
        tables, aims = by_size(sites, flags.rounds)
        shown, missing = pages(sites[min(sites)], flags.rounds, directory)
    finish(flags, [*tables, shown], load=load, aims=aims, missing=missing)


if __name__ == "__main__":
    parser = flags_of("workspace", __doc__)
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=list(SIZES), help="variants (5 50 200)"
    )
    run("workspace", main, parser)
