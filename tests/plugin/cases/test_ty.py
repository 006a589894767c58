from __future__ import annotations

from pants.core.goals.check import CheckResult, CheckResults
from pants.testutil.rule_runner import RuleRunner

from grug.ty import TyFieldSet, TyRequest
from tests.plugin.cases.workspace import write

SQUARE = "def square(x: int) -> int:\n    return x * x\n"


def check(runner: RuleRunner, directory: str, files: dict[str, str]) -> CheckResult:
    targets = write(runner, directory, files)
    request = TyRequest(TyFieldSet.create(target) for target in targets)
    (result,) = runner.request(CheckResults, [request]).results
    return result


def test_check_follows_first_party_imports(runner: RuleRunner) -> None:
    result = check(
        runner,
        "wrong",
        {
            "BUILD": "python_sources()",
            "a.py": "from wrong.square import square\n\nsquare('two')\n",
            "square.py": SQUARE,
        },
    )
    assert result.exit_code == 1
    assert "invalid-argument-type" in result.stdout
    assert "wrong/a.py:3:8" in result.stdout


def test_check_passes_right_code(runner: RuleRunner) -> None:
    result = check(
        runner,
        "right",
        {
            "BUILD": "python_sources()",
            "a.py": "from right.square import square\n\nsquare(2)\n",
            "square.py": SQUARE,
        },
    )
    assert result.exit_code == 0


def test_check_reads_third_party_code_of_the_resolve(runner: RuleRunner) -> None:
    runner.write_files({"BUILD": "python_requirement(name='ruff', requirements=['ruff'])"})
    result = check(
        runner,
        "third",
        {
            "BUILD": "python_sources()",
            "a.py": "from ruff import find_ruff_bin\n\nx: int = find_ruff_bin()\n",
            "b.py": "import absent\n",
        },
    )
    assert result.exit_code == 1
    assert "third/a.py:3" in result.stdout
    assert "third/a.py:1" not in result.stdout
    assert "third/b.py:1:8" in result.stdout
