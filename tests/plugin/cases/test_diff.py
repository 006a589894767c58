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
    result = diff(runner, "--format=markdown", "--against=", "experiments/speedrun/first::")
    assert result.exit_code == 0 and "second" in result.stdout


def test_what_cannot_be_compared_is_said(runner: RuleRunner) -> None:
    for args, message in (
        (("--variant=gon",), "gon: no such variant; nearest: gone"),
        (("--variant=second", "--against=nowhere:experiments"), "nowhere:experiments: fatal"),
    ):
        with pytest.raises(Exception, match=message):
            diff(runner, *args)
    assert diff(runner).exit_code == 1
