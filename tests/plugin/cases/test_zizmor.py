from __future__ import annotations

import pytest
from pants.core.goals.lint import LintResult
from pants.core.util_rules.partitions import Partitions, _EmptyMetadata
from pants.testutil.rule_runner import RuleRunner

from grug.zizmor import ZizmorRequest

PATH = ".github/workflows/greet.yml"
WORKFLOW = """name: greet
on: [pull_request]
permissions: {}
concurrency:
  group: ${{ github.workflow }}-${{ github.ref }}
  cancel-in-progress: true
jobs:
  greet:
    name: greet
    runs-on: ubuntu-latest
    steps:
      - run: echo %s
"""


def test_only_workflows_are_linted(runner: RuleRunner) -> None:
    files = ("README.md", PATH, ".github/dependabot.yml", ".github/workflows/notes.md")
    (partition,) = runner.request(Partitions, [ZizmorRequest.PartitionRequest(files)])
    assert partition.elements == (PATH,)


@pytest.mark.parametrize(
    ("message", "actual"),
    [('"${{ github.event.pull_request.title }}"', "template-injection"), ("hello", "")],
)
def test_a_title_pasted_into_a_script_is_found(
    runner: RuleRunner, message: str, actual: str
) -> None:
    runner.write_files({PATH: WORKFLOW % message})
    batch = ZizmorRequest.Batch("", (PATH,), partition_metadata=_EmptyMetadata())
    result = runner.request(LintResult, [batch])
    assert bool(result.exit_code) is bool(actual), result.stdout + result.stderr
    assert actual in result.stdout
