from __future__ import annotations

from pants.core.goals.lint import LintResult
from pants.core.util_rules.partitions import Partitions, _EmptyMetadata
from pants.testutil.rule_runner import RuleRunner

from grug.ledger import LedgerRequest

LEDGER = "docs/reports/grug-archive.md"
ENTRY = """# Archive

## gone

- path: experiments/grug/gone
- status: active
- purpose: a test
"""


def partitioned(runner: RuleRunner, *files: str) -> list[tuple[str, ...]]:
    request = LedgerRequest.PartitionRequest(files)
    return [partition.elements for partition in runner.request(Partitions, [request])]


def test_only_what_can_make_the_ledger_untrue_is_linted(runner: RuleRunner) -> None:
    about = ("experiments/grug/x/BUILD", LEDGER, "docs/reports/runs/x/1.json")
    assert partitioned(runner, "README.md", *about, "tools/archive/check.py") == [about]
    assert partitioned(runner, "README.md", "docs/reports/other.md") == []


def test_an_active_experiment_without_a_directory_is_named_by_line(runner: RuleRunner) -> None:
    runner.write_files({LEDGER: ENTRY})
    batch = LedgerRequest.Batch("", (LEDGER,), partition_metadata=_EmptyMetadata())
    result = runner.request(LintResult, [batch])
    assert result.exit_code == 1
    line = f"{LEDGER}:5: gone is active, but experiments/grug/gone is not there: put it back"
    assert line in result.stdout + result.stderr
