"""A recorded run's sources are a commit's, or are kept; and its results stand in the ledger."""

import shutil
import subprocess

import pytest

from tests.tools.runs.conftest import GIT, SOURCES, entry, rows
from tools.common.errors import ToolError
from tools.ledger.ledger import load_ledger
from tools.runs import check_ledger, kept_sources, run_summary
from tools.runs.record import record

EDITED = SOURCES | {"model.py": "WIDTH = 9\n"}


@pytest.fixture
def git(workspace):
    """The workspace as a repository; gives `git(...)`, which prints what git does."""

    def run(*arguments: str) -> str:
        command = [*GIT, "-C", str(workspace.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    run("init", "-q")
    return run


def commit(workspace, git, files: dict[str, str]) -> str:
    """Commits those files as base's."""
    directory = workspace.root / "experiments/grug/base"
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    git("add", "experiments")
    git("commit", "-qm", "base", "--allow-empty")
    return git("rev-parse", "HEAD")


def recorded(workspace, *runs):
    """What the first run's summary says of git, and the sources that are kept now."""
    path, *_ = record(runs, workspace.root)
    kept = {}
    for directory in (workspace.root / kept_sources.KEPT).glob("*"):
        for file in sorted(directory.rglob("*.py")):
            kept[file.relative_to(directory).as_posix()] = file.read_text()
    return run_summary.load(workspace.root / path, path).git, kept


def test_sources_of_the_commit_it_ran_at(workspace, git):
    at = commit(workspace, git, SOURCES | {"test_model.py": "not among what ran\n"})
    commit(workspace, git, EDITED)
    run = workspace.write_run("base-1", rows(10), commit=at)
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, {})
    assert kept_sources.check(workspace.root, run_summary.load_all(workspace.root)[0]) == []


def test_a_file_in_a_subdirectory_is_a_source(workspace, git):
    """The same name above it is another file."""
    inside = {**SOURCES, "plumbing/model.py": "SCALE = 1\n"}
    commit(workspace, git, inside)
    at = commit(workspace, git, {**inside, "plumbing/model.py": "SCALE = 3\n"})
    run = workspace.write_run("base-1", rows(10), commit=at, sources=inside)
    found, kept = recorded(workspace, run)
    assert (found["dirty"], kept) == (False, {}) and found["commit"] != at
    edited = {**inside, "plumbing/model.py": "SCALE = 9\n"}
    run = workspace.write_run("base-2", rows(10), commit=at, sources=edited)
    _, directory, _ = record([run], workspace.root)
    found, kept = recorded(workspace, run)
    assert (found["dirty"], kept) == (True, edited)
    assert (workspace.root / directory / "plumbing/model.py").is_file()
    assert kept_sources.check(workspace.root, run_summary.load_all(workspace.root)[0]) == []


def test_sources_committed_after_the_run(workspace, git):
    before = commit(workspace, git, EDITED)
    after = commit(workspace, git, SOURCES)
    commit(workspace, git, EDITED)
    run = workspace.write_run("base-1", rows(10), commit=before)
    assert recorded(workspace, run) == ({"commit": after, "dirty": False}, {})


@pytest.mark.parametrize("start", [None, "--all", "c" * 40])
def test_sources_of_no_commit_are_kept(workspace, git, start):
    commit(workspace, git, EDITED)
    commit(workspace, git, {"model.py": SOURCES["model.py"], "train.py": "STEPS = 8\n"})
    if start == "--all":  # what a run claims is no option of git's
        with pytest.raises(ToolError, match="git: is malformed"):
            recorded(workspace, workspace.write_run("base-0", rows(10), commit=start))
        return
    run = workspace.write_run("base-1", rows(10), commit=start)
    assert recorded(workspace, run) == ({"commit": start, "dirty": True}, SOURCES)
    runs, _ = run_summary.load_all(workspace.root)
    assert kept_sources.check(workspace.root, runs) == []
    (kept,) = (workspace.root / kept_sources.KEPT).iterdir()
    (kept / "model.py").write_text("WIDTH = 7\n")
    assert "is not what ran: restore it" in kept_sources.check(workspace.root, runs)[0]
    shutil.rmtree(kept)
    assert "its sources are no commit's, and docs/reports/sources/" in "".join(
        check_ledger.check(workspace.root)
    )
    kept.mkdir()
    assert "no recorded run is of these sources" in kept_sources.check(workspace.root, [])[0]


def test_a_copy_that_is_gone_or_changed(workspace, git):
    run = workspace.write_run("base-1", rows(10))
    (copy,) = (run / "sources").iterdir()
    (copy / "model.py").write_text("WIDTH = 7\n")
    with pytest.raises(ToolError, match=r"is not what ran .*: run it again"):
        record([run], workspace.root)
    shutil.rmtree(copy)
    with pytest.raises(ToolError, match="no commit of experiments/grug/base has the sources"):
        record([run], workspace.root)
    at = commit(workspace, git, SOURCES)  # run.json names each file's digest
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, {})


def test_a_copy_that_is_no_run_s(workspace, tmp_path_factory):
    run = workspace.write_run("base-1", rows(10))
    (copy,) = (run / "sources").iterdir()
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("x")
    (copy / "loss.py").symlink_to(secret)
    with pytest.raises(ToolError, match=r"loss.py: is no Python file of a run"):
        record([run], workspace.root)


def results(workspace, name: str) -> str:
    entries = {entry.name: entry for entry in load_ledger(workspace.root)}
    return entries[name].fields.get("results", "")


def seeds(workspace, variant: str, values: list[float]):
    """A run a seed, which ends at that many held-out bits per byte."""
    runs = []
    for seed, bpb in enumerate(values):
        lines = rows(10)
        lines[-1]["eval/bpb"] = bpb
        runs.append(
            workspace.write_run(
                f"{variant}-{seed}", lines, record={"variant": variant}, config={"seed": seed}
            )
        )
    return runs


def test_results_stand_in_the_ledger(workspace):
    before = workspace.ledger.read_text()
    record(seeds(workspace, "base", [2.0, 2.2]), workspace.root)
    said = "10 steps, 5K tokens, seeds 0, 1; 2.1000 ± 0.1414 (n = 2) held-out bits per byte"
    assert results(workspace, "base") == f"[recorded: {said}]" and results(workspace, "moe") == ""
    assert load_ledger(workspace.root)[0].purpose == "whether base pays"
    assert len(workspace.ledger.read_text().splitlines()) == len(before.splitlines()) + 2


def test_results_against_the_origin(workspace):
    record(seeds(workspace, "base", [2.0, 2.1]), workspace.root)
    record(seeds(workspace, "moe", [1.0, 1.1]), workspace.root)
    assert results(workspace, "moe").startswith(
        "[recorded: 10 steps, 5K tokens, seeds 0, 1; moe is lower; difference -1.0000 bits per byte"
    )


def test_results_keep_what_people_wrote(workspace):
    workspace.write_ledger(
        entry("base", results="Slow; [recorded: old] see the note."), entry("moe")
    )
    record(seeds(workspace, "base", [2.0]), workspace.root)
    said = results(workspace, "base")
    assert said.startswith("Slow; [recorded: 10 steps, 5K tokens, seed 0; 2.0000 (n = 1)")
    assert said.endswith("] see the note.") and "old" not in said
    again = workspace.ledger.read_bytes()
    record([workspace.root / "runs/base-0"], workspace.root)
    assert workspace.ledger.read_bytes() == again
