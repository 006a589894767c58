"""Many variants in one workspace: what listing them and testing one of them costs.

./pants run tests/benchmarks:scale -- --variants 200 --rounds 5

Makes two workspaces beside each other, one of 2 variants and one of many, all copies of base with
one small test, and asks both the same by turns. Times are seconds of a whole ./pants command with
its daemon running and nothing cached of what the edit touches.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import tyro

from tests.workspace.workspace import Workspace

TEST = "from experiments.grug.{name} import model\n\n\ndef test_it():\n    assert model.BATCH\n"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Measures the workspace with few and with many variants."""

    variants: int = 200
    """Variants in the larger workspace."""
    rounds: int = 5
    """Times each command is run in each workspace."""
    output: str = ""
    """Also write the numbers to this JSON file."""


def populate(root: Path, variants: int) -> Workspace:
    """A workspace of base and its copies, `variants` in all, each with one test that is quick."""
    workspace = Workspace(Path.cwd(), root)
    base = root / "experiments/grug/base"
    for test in [*base.glob("test_*.py"), base / "conftest.py"]:
        test.unlink()
    (base / "test_start.py").write_text(TEST.format(name="base"))
    for number in range(1, variants):
        workspace.fork(f"v{number:03d}")
    workspace.commit()
    return workspace


def timed(workspace: Workspace, *command: str) -> float:
    began = time.perf_counter()
    run = workspace.pants(*command)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} in {workspace.root} failed:\n{run.stderr}")
    return time.perf_counter() - began


def edit(workspace: Workspace, mark: str) -> None:
    file = workspace.root / "experiments/grug/v001/model.py"
    file.write_text(file.read_text().rstrip() + f"\n# {mark}\n")


def daemon_memory(workspace: Workspace) -> float:
    """Resident memory of the workspace's daemon, in GiB."""
    (pid,) = workspace.root.glob(".pids/*/pantsd/pid")
    return psutil.Process(int(pid.read_text())).memory_info().rss / 2**30


def main(options: Scale) -> None:
    commands: dict[str, Callable[[Workspace], float]] = {
        "variants": lambda w: timed(w, "variants"),
        "variants, one edited": lambda w: timed(w, "--changed-since=HEAD", "variants"),
        "test of the edited one": lambda w: timed(
            w, "--changed-since=HEAD", "--contract-skip", "test"
        ),
        "lint of isolation, all": lambda w: timed(w, "lint", "--only=grug-isolation", "::"),
    }
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        sizes = (2, options.variants)
        workspaces = dict(zip(sizes, (Path(few), Path(many)), strict=True))
        running = {n: populate(root, n) for n, root in workspaces.items()}
        try:
            cold = {n: {c: run(w) for c, run in commands.items()} for n, w in running.items()}
            warm = measure(running, commands, options.rounds)
            memory = {n: daemon_memory(w) for n, w in running.items()}
        finally:
            for workspace in running.values():
                workspace.stop()
    rows = [
        {
            "command": name,
            "variants": n,
            "first": cold[n][name],
            "median": statistics.median(warm[n][name]),
            "all": warm[n][name],
        }
        for name in commands
        for n in sizes
    ]
    print(table(rows, memory))
    if options.output:
        answer = {"schema_version": 1, "rows": rows, "daemon_gib": memory}
        Path(options.output).write_text(json.dumps(answer, indent=1) + "\n")


def measure(
    running: dict[int, Workspace],
    commands: dict[str, Callable[[Workspace], float]],
    rounds: int,
) -> dict[int, dict[str, list[float]]]:
    """Seconds of each command, by turns, after an edit nobody has seen before."""
    times = {n: {name: [] for name in commands} for n in running}
    for turn in range(rounds):
        for name, run in commands.items():
            for n, workspace in running.items():
                edit(workspace, f"{name}, turn {turn}")  # nothing the last command left helps
                times[n][name].append(run(workspace))
        print(f"round {turn + 1} of {rounds}", flush=True)
    return times


def table(rows: list[dict], memory: dict[int, float]) -> str:
    lines = [
        "| command | variants | first, s | median, s |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {r['command']} | {r['variants']} | {r['first']:.1f} | {r['median']:.2f} |"
            for r in rows
        ),
    ]
    held = ", ".join(f"{gib:.2f} GiB with {n} variants" for n, gib in memory.items())
    return "\n".join([*lines, "", f"Memory of the daemon: {held}."])


if __name__ == "__main__":
    main(tyro.cli(Scale))
