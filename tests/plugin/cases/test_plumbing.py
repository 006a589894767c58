"""`lint` says of each copy that the ledger knows whose plumbing it has, and fails none for it."""

from __future__ import annotations

import pytest
from pants.core.goals.lint import LintResult
from pants.engine.addresses import Address
from pants.testutil.rule_runner import RuleRunner

from grug.isolation import IsolationLintFieldSet
from grug.plumbing import PlumbingLintRequest
from tests.plugin.cases.workspace import lint

ENTRY = """
## {name}

- path: experiments/grug/{name}
- origin: {origin}
- status: active
- bucket: {bucket}
- purpose: to be copied
- verdict: pending
"""
LEDGER = ENTRY.format(name="root", origin="none", bucket="template") + ENTRY.format(
    name="copy", origin="root", bucket="loss kernel"
)


@pytest.fixture
def lint_both(runner: RuleRunner):
    def result(copied: str) -> LintResult:
        files: dict[str, str] = {"docs/reports/grug-archive.md": LEDGER}
        for name, text in (("root", "a = 1\n"), ("copy", copied)):
            directory = f"experiments/grug/{name}"
            files |= {
                f"{directory}/BUILD": "grug_variant()",
                f"{directory}/model.py": "",
                f"{directory}/plumbing/data.py": text,
            }
        runner.write_files(files)
        addresses = [
            Address(f"experiments/grug/{name}", relative_file_path="plumbing/data.py")
            for name in ("root", "copy")
        ]
        targets = [runner.get_target(address) for address in addresses]
        return lint(runner, PlumbingLintRequest, IsolationLintFieldSet, targets)

    return result


@pytest.mark.parametrize(
    ("copied", "whose"), [("a = 1\n", "root's"), ("a = 2\n", "1 file of its own")]
)
def test_a_copy_has_its_origins_plumbing_or_its_own(lint_both, copied: str, whose: str) -> None:
    result = lint_both(copied)
    assert result.exit_code == 0
    assert result.stdout == f"experiments/grug/copy: plumbing: {whose}"
