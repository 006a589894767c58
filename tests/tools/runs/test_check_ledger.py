"""A ledger that is not true: each way, with its line and its remedy."""

import json
import subprocess

import pytest

from tests.tools.runs.conftest import GIT, entry
from tools.common.errors import ToolError
from tools.ledger.ledger import LEDGER
from tools.runs import __main__ as command
from tools.runs import check_ledger
from tools.runs.kept_sources import digest_of


@pytest.fixture
def repository(workspace):
    """The workspace in git, with directories for its two experiments, and its one commit."""
    for name in ("base", "moe"):
        build = workspace.root / f"experiments/grug/{name}/BUILD"
        build.parent.mkdir(parents=True)
        build.write_text("grug_variant()\n")
    subprocess.run([*GIT, "init", "-q", "."], cwd=workspace.root, check=True)
    subprocess.run([*GIT, "add", "."], cwd=workspace.root, check=True)
    subprocess.run([*GIT, "commit", "-qm", "all"], cwd=workspace.root, check=True)
    requested = [*GIT, "rev-parse", "HEAD"]
    result = subprocess.run(
        requested, cwd=workspace.root, capture_output=True, text=True, check=True
    )
    workspace.commit = result.stdout.strip()
    return workspace


def faults(workspace):
    return check_ledger.check(workspace.root)


def test_a_true_ledger(repository, capsys):
    short = repository.commit[:8]
    repository.write_ledger(
        entry("base", introduced=repository.commit),
        entry("moe", forked_at=short, introduced="pending", superseded_by=short),
    )
    assert faults(repository) == []
    assert command.main(["check", "--root", str(repository.root)]) == 0
    assert "2 entries hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("introduced", "deadbeef", "moe: introduced: git knows no commit deadbeef: correct it"),
        ("introduced", "soon", "moe: introduced: 'soon' is not a commit: 7 or more hexadecimal"),
        ("forked at", "deadbeef", "moe: forked at: git knows no commit deadbeef"),
        ("forked at", "pending", "moe: forked at: 'pending' is not a commit"),
        ("forked at", "--help", "'--help' is not a commit"),
        ("last known-good", "deadbeef", "moe: last known-good: git knows no commit deadbeef"),
        ("superseded by", "nobody", "'nobody' is not an experiment of this ledger, nor a commit"),
    ],
)
def test_commits_that_git_does_not_know(repository, field, value, message):
    fields = {"status": "superseded", "superseded by": "base", "verdict": "it pays"}
    fields |= {"last known-good": repository.commit, field: value}
    repository.write_ledger(entry("base"), entry("moe", **fields))
    (line,) = faults(repository)
    number = repository.ledger.read_text().splitlines().index(f"- {field}: {value}") + 1
    assert line.startswith(f"docs/reports/grug-archive.md:{number}: ") and message in line


def test_a_tree_is_no_commit(repository):
    requested = [*GIT, "rev-parse", "HEAD^{tree}"]
    result = subprocess.run(
        requested, cwd=repository.root, capture_output=True, text=True, check=True
    )
    repository.write_ledger(entry("base"), entry("moe", forked_at=result.stdout.strip()))
    assert "git knows no commit" in faults(repository)[0]


def test_all_commits_are_asked_for_at_once(repository, monkeypatch):
    calls = []
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (calls.append(a), real(*a, **k))[1])
    many = (f"{n:07x}" for n in range(200))
    names = [entry("base"), *(entry(f"v{n}", forked_at=c) for n, c in enumerate(many))]
    repository.write_ledger(*names)
    assert sum("git knows no commit" in line for line in faults(repository)) == 200
    assert sum("cat-file" in command for (command,) in calls) == 1


def test_the_repository_may_lie_elsewhere(repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("sandbox")
    (root / "docs").mkdir()
    (repository.root / "docs/reports").rename(root / "docs/reports")
    (repository.root / "experiments").rename(root / "experiments")
    text = entry("base", introduced=repository.commit)
    (root / LEDGER).write_text(text + entry("moe"))
    assert check_ledger.check(root, repository.root / ".git") == []
    with pytest.raises(ToolError, match="name the repository with --git-dir DIR"):
        check_ledger.check(root, root)


def test_directories_and_entries_that_do_not_match(repository):
    repository.write_ledger(
        entry("base"),
        entry("moe", status="deleted", verdict="no", last_known_good=repository.commit),
        entry("gone"),
    )
    # A speedrun has a record instead.
    for path in ("experiments/speedrun/2026-01-01_fast", "experiments/grug/fast"):
        (repository.root / path).mkdir(parents=True)
        (repository.root / path / "BUILD").write_text("")
    result = faults(repository)
    assert [line.split(": ", 1)[1] for line in result] == [
        "moe is deleted, but experiments/grug/moe is there: remove the directory, or set 'status: "
        "active'",
        "gone is active, but experiments/grug/gone is not there: put it back, or set 'status: "
        "deleted' and '- last known-good: COMMIT'",
        "experiments/grug/fast is not recorded: add "
        "docs/reports/variants/fast.md, or remove the directory",
    ]
    lines = [line.split(":")[1] for line in result]
    assert lines == ["14", "24", "1"]


def test_a_directory_that_came_back_under_another_name(repository):
    gone = entry(
        "old", path="experiments/grug/moe", status="deleted", verdict="no", last_known_good="0" * 7
    )
    again = entry("moe")
    repository.write_ledger(entry("base"), gone, again)
    assert [line for line in faults(repository) if "is there" in line] == []


def test_faults_of_the_text_come_with_the_others(repository):
    repository.write_ledger(entry("base"), entry("moe", bucket="MLP", forked_at="deadbeef"))
    result = faults(repository)
    assert len(result) == 2 and "unknown bucket 'MLP'" in result[0]


@pytest.mark.parametrize("path", ["/etc", "../x", "experiments/../..", "a//b", "experiments/grug/"])
def test_a_path_that_leads_out(repository, path):
    repository.write_ledger(entry("base"), entry("moe", path=path))
    assert any("is no path from the workspace's root" in line for line in faults(repository))


def test_summaries(repository):
    git = {"commit": repository.commit, "dirty": False}
    nothing = digest_of({})  # base has no file but BUILD
    good = repository.write_summary("base", "base-1", git=git, sources_digest=nothing)
    assert faults(repository) == []
    lacking = {5: ("ancestors",)}
    lacking[4] = ("origin", "host", "step_time_spread", *lacking[5])
    lacking[3] = ("heldout_targets", *lacking[4])
    lacking[2] = ("run_schema", "numerics", *lacking[3])
    lacking[1] = ("roles", *lacking[2])
    for schema, keys in lacking.items():
        older = {k: v for k, v in good.items() if k not in keys}
        older |= {"run": f"base-0{schema}", "schema_version": schema}
        older["curve"] = [[a, b, c - schema / 100 * (a < 100), d] for a, b, c, d in good["curve"]]
        older_path = repository.root / f"docs/reports/runs/base/base-0{schema}.json"
        older_path.write_text(json.dumps(older))
    assert faults(repository) == []
    repository.write_summary("nobody", "nobody-1", git=git)
    repository.write_summary("base", "base-2", schema_version=7)
    repository.write_summary("base", "base-3", curve=[])
    repository.write_summary("base", "base-4", run="base-1")
    runs = repository.root / "docs/reports/runs"
    (runs / "base/base-5.json").write_text("{")
    (runs / "base/base-6.json").write_text('{"schema_version": 1}')
    (runs / "base/base-7.json").write_text(repr(good).replace("'", '"').replace("4.0", "NaN"))
    (runs / "base/base-8.json").write_text("[" * 10_000)
    (runs / "base/base-9.json").write_text(" " * 20_000)
    (runs / "base/notes.txt").write_text("")
    (runs / "moe").symlink_to(runs / "base")
    result = faults(repository)
    shorter = [line.removeprefix("docs/reports/runs/") for line in result]
    assert [line.split(": ")[0] for line in shorter] == [
        "nobody/nobody-1.json:3",
        "base/base-2.json:2",
        "base/base-3.json:27",
        "base/base-4.json:4",
        "base/base-5.json:1",
        "base/base-6.json:1",
        "base/base-7.json:1",
        "base/base-8.json:1",
        "base/base-9.json",
        "base/notes.txt:1",
        "moe:1",
    ]
    assert "'nobody' is not recorded: add docs/reports/variants/nobody.md" in result[0]


@pytest.mark.parametrize(
    "values",
    [
        {"curve": [[step, step, step, 1.0] for step in range(1, 202)]},
        {"curve": [[2, 1, 1, 1.0], [2, 2, 2, 1.0]]},
        {"curve": [[1, 2, 1, 1.0], [2, 1, 2, 1.0]]},
        {"curve": [[1, 1, 1]]},
        {"heldout": [[1, 1, 1, 1.0, "x"]]},
        {"git": {"commit": "--help", "dirty": False}},
        {"tokens_per_second": 10**400},
        {"tokens_per_second": 0},
    ],
)
def test_a_summary_that_no_run_gives(repository, values):
    repository.write_summary("base", "base-1", **values)
    (line,) = faults(repository)
    assert f"{next(iter(values))}: is malformed: write it again" in line


def test_faults_are_lines_and_exit_code_1(repository, capsys):
    repository.write_ledger(entry("base"), entry("gone"), entry("moe"))
    assert command.main(["check", "--root", str(repository.root)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit) as ended:
        command.main(["chek"])
    assert ended.value.code == 2
