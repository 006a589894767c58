from __future__ import annotations

import json

import pytest
from pants.testutil.rule_runner import GoalRuleResult, RuleRunner

from grug.variants import Variants
from tests.plugin.cases.conftest import INHERITED, OPTIONS

LEDGER = """
## root

- path: experiments/speedrun/root
- origin: none
- status: active
- bucket: template
- purpose: to be copied
- verdict: pending

## copy

- path: experiments/speedrun/copy
- origin: root
- status: active
- bucket: loss kernel
- purpose: to be compared
- verdict: pending
"""


@pytest.fixture(autouse=True)
def two_variants(runner: RuleRunner) -> None:
    runner.write_files(
        {
            "docs/reports/grug-archive.md": LEDGER,
            "experiments/speedrun/root/BUILD": "grug_variant()",
            "experiments/speedrun/root/run.py": "a = 1\nb = 2\n",
            "experiments/speedrun/copy/BUILD": "grug_variant(accelerators=['cpu', 'gpu'])",
            "experiments/speedrun/copy/run.py": "a = 1\nb = 3\nc = 4\n",
        }
    )


def variants(runner: RuleRunner, *args: str) -> GoalRuleResult:
    return runner.run_goal_rule(Variants, global_args=OPTIONS, args=args, env_inherit=INHERITED)


def test_lists_names_numbers_and_the_ledger(runner: RuleRunner) -> None:
    result = variants(runner, "--format=json", "experiments/speedrun::")
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)["variants"]}
    assert rows["root"] | {"purpose": ""} == {
        "name": "root",
        "path": "experiments/speedrun/root",
        "origin": "none",
        "status": "active",
        "bucket": "template",
        "files": 1,
        "lines": 2,
        "added": None,
        "deleted": None,
        "own_plumbing": None,
        "plumbing": None,
        "accelerators": ["cpu", "gpu", "tpu"],
        "purpose": "",
    }
    copy = rows["copy"]
    assert (copy["origin"], copy["bucket"], copy["lines"]) == ("root", "loss kernel", 3)
    assert (copy["added"], copy["deleted"]) == (2, 1)
    assert copy["accelerators"] == ["cpu", "gpu"]


def test_a_spec_names_some_of_them(runner: RuleRunner) -> None:
    result = variants(runner, "--format=names", "experiments/speedrun/copy::")
    assert result.stdout == "copy\n"


def test_a_wrong_ledger_is_said_by_line(runner: RuleRunner) -> None:
    wrong = LEDGER.replace("loss kernel", "everything")
    runner.write_files({"docs/reports/grug-archive.md": wrong})
    result = variants(runner)
    assert result.exit_code == 1
    assert "docs/reports/grug-archive.md:16: unknown bucket 'everything'" in result.stderr
