"""`diff` finds both sides, asks tools/diff/ and writes what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pants.testutil.rule_runner import GoalRuleResult, RuleRunner

from grug.diff import Diff
from tests.plugin.cases.conftest import INHERITED, OPTIONS

LEDGER = """
## first

- path: experiments/speedrun/first
- origin: none
- status: active
- bucket: template
- purpose: to be copied
- verdict: pending

## second

- path: experiments/speedrun/second
- origin: first
- status: active
- bucket: loss kernel
- purpose: to be compared
- verdict: pending

## gone

- path: experiments/speedrun/gone
- origin: first
- status: deleted
- last known-good: {commit}
- bucket: loss kernel
- purpose: to be deleted
- verdict: negative
"""
FIRST = "WIDTH = 1\n\n\ndef loss(x):\n    return x\n"
SECOND = "WIDTH = 2\n\n\ndef loss(x):\n    return x * x\n"


@pytest.fixture(scope="module", autouse=True)
def variants(runner: RuleRunner) -> None:
    """Two live ones, and one that only git still has."""
    runner.write_files(
        {
            "experiments/speedrun/first/BUILD": "grug_variant()",
            "experiments/speedrun/first/run.py": FIRST,
            "experiments/speedrun/second/BUILD": "grug_variant()",
            "experiments/speedrun/second/run.py": SECOND,
            "experiments/speedrun/gone/run.py": "WIDTH = 77\n",
        }
    )

    def git(*args: str) -> str:
        command = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *args)
        run = subprocess.run(command, cwd=runner.build_root, check=True, capture_output=True)
        return run.stdout.decode().strip()

    git("init", "--quiet")
    git("add", "experiments/speedrun")
    git("commit", "--quiet", "--message=a state")
    commit = git("rev-parse", "HEAD")
    Path(runner.build_root, "experiments/speedrun/gone/run.py").unlink()
    runner.write_files({"docs/reports/grug-archive.md": LEDGER.format(commit=commit)})


def diff(runner: RuleRunner, *args: str) -> GoalRuleResult:
    return runner.run_goal_rule(Diff, global_args=OPTIONS, args=args, env_inherit=INHERITED)


def test_a_page_against_the_recorded_origin(runner: RuleRunner) -> None:
    result = diff(runner, "experiments/speedrun/second::")
    assert (result.exit_code, result.stdout) == (0, "dist/diff/second/index.html\n")
    page = Path(runner.build_root, "dist/diff/second/index.html").read_text()
    assert "default-src" in page and "return" in page
    assert "first" in page and str(runner.build_root) not in page


def test_json_counts_lines(runner: RuleRunner) -> None:
    result = diff(runner, "--format=json", "experiments/speedrun/second::")
    assert json.loads(result.stdout)["schema_version"] == 1
    assert '"added": 2' in result.stdout and '"deleted": 2' in result.stdout


def test_a_deleted_variant_is_read_from_its_commit(runner: RuleRunner) -> None:
    result = diff(runner, "--format=markdown", "--variant=gone")
    assert result.exit_code == 0 and "gone" in result.stdout


def test_against_a_commit_and_without_an_origin(runner: RuleRunner) -> None:
    second = "experiments/speedrun/second::"
    same = diff(runner, "--format=json", "--against=HEAD:experiments/speedrun/second", second)
    assert same.exit_code == 0 and '"added": 2' not in same.stdout
    found = diff(runner, "--format=markdown", "--against=", "experiments/speedrun/first::")
    assert found.exit_code == 0 and "second" in found.stdout


def test_what_cannot_be_compared_is_said(runner: RuleRunner) -> None:
    for args, message in (
        (("--variant=gon",), "gon: no such variant; nearest: gone"),
        (("--variant=second", "--against=nowhere:experiments"), "git knows no commit 'nowhere'"),
        (("experiments/speedrun/secnd:",), "experiments/speedrun/secnd: no such variant; nearest"),
    ):
        result = diff(runner, *args)
        assert result.exit_code == 1 and message in result.stderr
    assert diff(runner).exit_code == 1


def test_what_fails_leaves_the_others_alone(runner: RuleRunner) -> None:
    """A variant whose plan fails is reported without sizes; one without a commit, not at all."""
    here = "experiments/speedrun/broken"
    entry = (
        f"\n## broken\n\n- path: {here}\n- origin: first\n- status: active\n"
        "- bucket: loss kernel\n- purpose: to fail\n- verdict: pending\n"
        "\n## lost\n\n- path: experiments/speedrun/lost\n- origin: first\n- status: deleted\n"
        f"- last known-good: {'0' * 12} tree {'1' * 12}\n- bucket: loss kernel\n"
        "- purpose: to be lost\n- verdict: negative\n"
    )
    ledger = Path(runner.build_root, "docs/reports/grug-archive.md")
    before = ledger.read_text()
    runner.write_files(
        {
            "docs/reports/grug-archive.md": before + entry,
            f"{here}/BUILD": "grug_variant()",
            f"{here}/launch.py": "oops = undefined_name\n",
        }
    )
    flags = ("--format=markdown", "--variant=lost")
    result = diff(runner, *flags, f"{here}::", "experiments/speedrun/second::")
    assert "Size not known" in result.stdout and "undefined_name" in result.stdout
    assert "second" in result.stdout
    assert "no commit that is left has the content" in result.stderr and result.exit_code == 1
    assert diff(runner, "--format=markdown", f"{here}::").exit_code == 0
    runner.write_files({"docs/reports/grug-archive.md": before, f"{here}/launch.py": ""})


def test_code_that_is_gone_is_not_run(runner: RuleRunner) -> None:
    """Of a tree in history the size is what was kept."""
    root = Path(runner.build_root)

    def git(*args: str) -> str:
        run = subprocess.run(("git", *args), cwd=root, check=True, capture_output=True)
        return run.stdout.decode().strip()

    tree = git("rev-parse", "HEAD:experiments/speedrun/gone")[:12]
    commit = git("rev-parse", "HEAD")[:12]
    ledger = root / "docs/reports/grug-archive.md"
    before = ledger.read_text()
    full = git("rev-parse", "HEAD")
    assert full in before
    size = {
        "schema_version": 1,
        "path": "experiments/speedrun/gone",
        "tree": tree,
        "preset": "tiny",
        "parameters": 123456,
        "active_parameters": None,
        "flops_per_token": 7.0,
    }
    runner.write_files(
        {
            "docs/reports/grug-archive.md": before.replace(full, f"{commit} tree {tree}"),
            f"docs/reports/sizes/{tree}.json": json.dumps(size),
        }
    )
    result = diff(runner, "--format=markdown", "--variant=gone")
    assert result.exit_code == 0 and "123,456" in result.stdout
    runner.write_files({"docs/reports/grug-archive.md": before})
