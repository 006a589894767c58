from __future__ import annotations

import subprocess

from pants.core.goals.lint import LintResult
from pants.core.util_rules.partitions import Partitions, _EmptyMetadata
from pants.testutil.rule_runner import RuleRunner

from grug.records import RecordsRequest

LEDGER = "docs/reports/grug-archive.md"
ENTRY = """# Archive

## gone

- path: experiments/grug/gone
- introduced: 0123456789ab
- status: active
- purpose: a test
"""


def partitioned(runner: RuleRunner, *files: str) -> list[tuple[str, ...]]:
    request = RecordsRequest.PartitionRequest(files)
    return [partition.elements for partition in runner.request(Partitions, [request])]


def test_only_what_can_make_the_ledger_untrue_is_linted(runner: RuleRunner) -> None:
    about = ("experiments/grug/x/BUILD", LEDGER, "docs/reports/runs/x/1.json")
    assert partitioned(runner, "README.md", *about, "tools/runs/check_ledger.py") == [about]
    assert partitioned(runner, "README.md", "docs/reports/other.md") == []


def test_faults_are_named_by_line(runner: RuleRunner) -> None:
    runner.write_files({LEDGER: ENTRY})
    subprocess.run(["git", "init", "--quiet"], cwd=runner.build_root, check=True)
    batch = RecordsRequest.Batch("", (LEDGER,), partition_metadata=_EmptyMetadata())
    result = runner.request(LintResult, [batch])
    assert result.exit_code == 1
    said = result.stdout + result.stderr
    assert f"{LEDGER}:5: gone is active, but experiments/grug/gone is not there: put it" in said
    assert f"{LEDGER}:6: gone: introduced: git knows no commit 0123456789ab" in said
