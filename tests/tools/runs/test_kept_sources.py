"""A recorded run's sources are a commit's, or are kept; and its results stand in the ledger."""

import shutil
import subprocess

import pytest

from tests.tools.runs.conftest import GIT, SOURCES, entry, rows
from tools.common.errors import ToolError
from tools.ledger.ledger import load_ledger
from tools.runs import check_ledger, kept_sources, run_summary
from tools.runs import record as command
from tools.runs.compare_runs import groups
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
        for file in sorted(f for f in directory.rglob("*") if f.is_file()):
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
    result, kept = recorded(workspace, run)
    assert (result["dirty"], kept) == (False, {}) and result["commit"] != at
    edited = {**inside, "plumbing/model.py": "SCALE = 9\n"}
    run = workspace.write_run("base-2", rows(10), commit=at, sources=edited)
    _, directory, *_ = record([run], workspace.root)
    result, kept = recorded(workspace, run)
    assert (result["dirty"], kept) == (True, edited)
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
    assert "its sources match no commit, and docs/reports/sources/" in "".join(
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
    with pytest.raises(ToolError, match=r"loss.py: is no file of a run"):
        record([run], workspace.root)


def test_a_data_file_is_a_source(workspace, git):
    """Two runs of the same Python files that read other data are of other sources."""
    with_data = {**SOURCES, "kernels/table.json": '{"scale": 1}'}
    at = commit(workspace, git, with_data)
    run = workspace.write_run("base-1", rows(10), commit=at, sources=with_data)
    edited = {**with_data, "kernels/table.json": '{"scale": 3}'}
    other = workspace.write_run("base-2", rows(10), config={"seed": 1}, commit=at, sources=edited)
    paths = record([run, other], workspace.root)
    first, second = (run_summary.load(workspace.root / p, p) for p in paths[:2])
    assert (first.git, second.git) == (
        {"commit": at, "dirty": False},
        {"commit": at, "dirty": True},
    )
    kept = workspace.root / kept_sources.place(second.sources_digest)
    assert (kept / "kernels/table.json").read_text() == '{"scale": 3}'
    assert len(groups([first, second])) == 2
    assert kept_sources.check(workspace.root, [first, second]) == []
    (kept / "kernels/table.json").write_text("{}")
    assert "is not what ran" in kept_sources.check(workspace.root, [first, second])[0]


@pytest.mark.parametrize("name", ["gone.py", "gone.json", "notes/gone.txt"])
def test_a_file_that_was_deleted_is_missed(workspace, git, name):
    """A commit that holds more than what ran is not what ran."""
    at = commit(workspace, git, {**SOURCES, name: "x = 1\n"})
    run = workspace.write_run("base-1", rows(10), commit=at)
    assert recorded(workspace, run)[0] == {"commit": at, "dirty": True}
    old = workspace.write_run("base-2", rows(10), commit=at, schema=2)
    assert recorded(workspace, old)[0] == {"commit": at, "dirty": False}  # as ever


def test_what_a_run_does_not_read_is_no_source(workspace, git):
    beside = {".hidden": "", "BUILD": "", "test_model.py": "", "part/model_test.py": ""}
    beside |= {"part/conftest.py": "", "part/.cache/x.json": ""}
    at = commit(workspace, git, {**SOURCES, **beside})
    run = workspace.write_run("base-1", rows(10), commit=at)
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, {})


ODD = ("caf\u00e9.json", "two words.txt", "a#b.md", "line\nfeed.csv", "zz[1]*.bin", '"q".py')


def test_any_name_that_git_holds(workspace, git):
    odd = {**SOURCES, **{f"d\u00e4ta/{name}": name for name in ODD}}
    workspace.write_ledger(entry("base"))
    at = commit(workspace, git, odd)
    run = workspace.write_run("base-1", rows(10), commit=at, sources=odd)
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, {})
    commit(workspace, git, {f"d\u00e4ta/{ODD[0]}": "other"})
    edited = {**odd, f"d\u00e4ta/{ODD[3]}": "edited"}
    run = workspace.write_run("base-2", rows(10), commit=at, sources=edited)
    _, kept, *_ = record([run], workspace.root)
    assert {
        file.relative_to(workspace.root / kept).as_posix()
        for file in (workspace.root / kept).rglob("*")
        if file.is_file()
    } == set(edited)
    assert check_ledger.check(workspace.root) == []


def test_a_file_too_large_for_a_copy_is_to_be_committed(workspace, git):
    at = commit(workspace, git, SOURCES)
    large = {**SOURCES, "table.bin": "0" * 100}
    run = workspace.write_run("base-1", rows(10), commit=at, sources=large)
    (copy,) = (run / "sources").iterdir()
    (copy / "table.bin").unlink()
    with pytest.raises(ToolError, match=r"the sources that ran: commit table.bin, which was too"):
        record([run], workspace.root)
    at = commit(workspace, git, large)
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, {})


def test_sources_committed_after_the_recording(workspace, git):
    """The same run: its summary is updated, and what was kept of it is not needed any more."""
    workspace.write_ledger(entry("base"))
    at = commit(workspace, git, EDITED)
    first = workspace.write_run("base-1", rows(10), commit=at)
    second = workspace.write_run("base-2", rows(10), config={"seed": 1}, commit=at)
    paths = record([first, second], workspace.root)
    (kept,) = (workspace.root / kept_sources.KEPT).iterdir()
    assert paths[2] == kept.relative_to(workspace.root).as_posix()
    before = (workspace.root / paths[1]).read_bytes()
    after = commit(workspace, git, SOURCES)
    again = record([first], workspace.root)
    # The other run of these sources has the commit, too: nothing is left that needs the copy.
    assert again == [paths[0], paths[1], paths[2]] and not kept.exists()
    for path in paths[:2]:
        found = run_summary.load(workspace.root / path, path)
        assert found.git == {"commit": after, "dirty": False}
    assert (workspace.root / paths[1]).read_bytes().replace(
        f'"commit":"{after}","dirty":false'.encode(), f'"commit":"{at}","dirty":true'.encode()
    ) == before
    assert check_ledger.check(workspace.root) == []


def test_what_was_kept_of_a_run_that_is_replaced_goes(workspace, git):
    workspace.write_ledger(entry("base"))
    at = commit(workspace, git, EDITED)
    record([workspace.write_run("base-1", rows(10), commit=at)], workspace.root)
    (kept,) = (workspace.root / kept_sources.KEPT).iterdir()
    again = workspace.write_run("again/base-1", rows(20), commit=at, sources=EDITED)
    paths = record([again], workspace.root, replace=True)
    assert paths[-1] == kept.relative_to(workspace.root).as_posix() and not kept.exists()
    assert check_ledger.check(workspace.root) == []


def test_sources_that_only_a_branch_has_are_kept(workspace, git):
    """A squash merge drops the branch's commits, and with them the sources of its runs."""
    git("checkout", "-qb", "main")
    commit(workspace, git, EDITED)
    git("checkout", "-qb", "topic")
    at = commit(workspace, git, SOURCES)
    run = workspace.write_run("base-1", rows(10), commit=at)
    assert recorded(workspace, run) == ({"commit": at, "dirty": False}, SOURCES)
    git("checkout", "-q", "main")
    git("merge", "-q", "--squash", "topic")
    git("commit", "-qm", "squashed")
    merged = git("rev-parse", "HEAD")
    assert recorded(workspace, run) == ({"commit": merged, "dirty": False}, {})


def test_what_is_written_is_staged_and_nothing_else(workspace, git, capsys):
    at = commit(workspace, git, EDITED)
    (workspace.root / ".gitignore").write_text("runs/\n*.json\n*.npy\n")
    git("add", ".")
    git("commit", "-qm", "all")
    (workspace.root / "docs/beside.md").write_text("not mine")
    ran = {**SOURCES, "table.npy": "1"}
    run = workspace.write_run("base-1", rows(10), commit=at, sources=ran)
    assert command.main([str(run), f"--root={workspace.root}", "--stage"]) == 0
    printed = capsys.readouterr().out.splitlines()
    staged = git("diff", "--cached", "--name-only").splitlines()
    assert len(staged) == 5 and all(path.startswith(tuple(printed)) for path in staged)
    assert f"{printed[1]}/table.npy" in staged  # though .gitignore names it
    git("commit", "-qm", "recorded")
    commit(workspace, git, SOURCES)
    git("add", "--force", "experiments")
    (workspace.root / "experiments/grug/base/table.npy").write_text("1")
    git("add", "--force", "experiments/grug/base/table.npy")
    git("commit", "-qm", "what ran")
    assert command.main([str(run), f"--root={workspace.root}", "--stage"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith(": removed, the main branch has these sources")
    assert not git("diff", "--name-only") and "table.npy" in git("diff", "--cached", "--name-only")


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
    message = "10 steps, 5K tokens, seeds 0, 1; 2.1000 ± 0.1414 (n = 2) held-out bits per byte"
    assert (
        results(workspace, "base") == f"[recorded: {message}]" and results(workspace, "moe") == ""
    )
    assert load_ledger(workspace.root)[0].purpose == "whether base pays"
    assert len(workspace.ledger.read_text().splitlines()) == len(before.splitlines()) + 2


def test_results_against_the_origin(workspace):
    record(seeds(workspace, "base", [2.0, 2.1]), workspace.root)
    record(seeds(workspace, "moe", [1.0, 1.1002]), workspace.root, against="base@base-0")
    assert results(workspace, "moe").startswith(
        "[recorded: 10 steps, 5K tokens, seeds 0, 1; moe is better by 0.9999 bits per byte; 95% "
    )
    assert "; against base as recorded in base-0 (sources " in results(workspace, "moe")


def test_results_keep_what_people_wrote(workspace):
    workspace.write_ledger(
        entry("base", results="Slow; [recorded: old] see the note."), entry("moe")
    )
    record(seeds(workspace, "base", [2.0]), workspace.root)
    message = results(workspace, "base")
    assert message.startswith("Slow; [recorded: 10 steps, 5K tokens, seed 0; 2.0000 (n = 1)")
    assert message.endswith("] see the note.") and "old" not in message
    again = workspace.ledger.read_bytes()
    record([workspace.root / "runs/base-0"], workspace.root)
    assert workspace.ledger.read_bytes() == again
