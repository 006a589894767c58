from __future__ import annotations

from pants.core.goals.fmt import FmtResult
from pants.core.goals.lint import LintResult
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.fs import DigestContents
from pants.testutil.rule_runner import RuleRunner

from grug.ruff import RuffFieldSet, RuffFmtRequest, RuffLintRequest
from tests.plugin.cases.workspace import lint, write

UNTIDY = "import sys, os\nprint( sys.path,os.sep )\n"
TIDY = "import os\nimport sys\n\nprint(sys.path, os.sep)\n"


def ruff_lint(runner: RuleRunner, directory: str, code: str) -> LintResult:
    targets = write(runner, directory, {"BUILD": "python_sources()", "a.py": code})
    return lint(runner, RuffLintRequest, RuffFieldSet, targets)


def ruff_fmt(runner: RuleRunner, directory: str, code: str) -> tuple[bool, str]:
    targets = write(runner, directory, {"BUILD": "python_sources()", "a.py": code})
    request = SourceFilesRequest(RuffFieldSet.create(target).source for target in targets)
    snapshot = runner.request(SourceFiles, [request]).snapshot
    batch = RuffFmtRequest.Batch("", snapshot.files, partition_metadata=None, snapshot=snapshot)
    result = runner.request(FmtResult, [batch])
    (file,) = runner.request(DigestContents, [result.output.digest])
    return result.did_change, file.content.decode()


def test_lint_names_rule_and_line(runner: RuleRunner) -> None:
    result = ruff_lint(runner, "unused", "import os\n")
    assert result.exit_code == 1
    assert "F401" in result.stdout
    assert "unused/a.py:1:8" in result.stdout


def test_lint_refuses_two_modules_on_one_line_and_unsorted_imports(runner: RuleRunner) -> None:
    result = ruff_lint(runner, "untidy", UNTIDY)
    assert result.exit_code == 1
    assert "E401" in result.stdout
    assert "I001" in result.stdout


def test_lint_passes_tidy_code(runner: RuleRunner) -> None:
    assert ruff_lint(runner, "tidy", TIDY).exit_code == 0


def test_fmt_sorts_imports_and_lays_out(runner: RuleRunner) -> None:
    assert ruff_fmt(runner, "to_tidy", UNTIDY) == (True, TIDY)


def test_fmt_leaves_tidy_code(runner: RuleRunner) -> None:
    assert ruff_fmt(runner, "left", TIDY) == (False, TIDY)
