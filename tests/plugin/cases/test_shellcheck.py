from __future__ import annotations

from pants.core.goals.lint import LintResult
from pants.testutil.rule_runner import RuleRunner

from grug.shellcheck import ShellcheckFieldSet, ShellcheckRequest
from tests.plugin.cases.workspace import lint, write


def shellcheck_lint(runner: RuleRunner, directory: str, script: str) -> LintResult:
    targets = write(runner, directory, {"BUILD": "shell_sources()", "a.sh": script})
    return lint(runner, ShellcheckRequest, ShellcheckFieldSet, targets)


def test_lint_names_rule_and_line(runner: RuleRunner) -> None:
    result = shellcheck_lint(runner, "unquoted", "#!/bin/sh\nrm $1\n")
    assert result.exit_code == 1
    assert "SC2086" in result.stdout
    assert "In unquoted/a.sh line 2" in result.stdout


def test_lint_passes_sound_script(runner: RuleRunner) -> None:
    assert shellcheck_lint(runner, "quoted", '#!/bin/sh\nrm "$1"\n').exit_code == 0
