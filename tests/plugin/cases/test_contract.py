"""`#contract` runs the suite's files beside one variant, which it names in GRUG_VARIANT."""

from __future__ import annotations

from pants.core.goals.test import TestResult
from pants.core.util_rules.partitions import _EmptyMetadata
from pants.engine.addresses import Address
from pants.testutil.rule_runner import RuleRunner

from grug.contract import ContractFieldSet, ContractRequest

SUITE_TEST = """
import importlib
import os
from pathlib import Path

VARIANT = os.environ["GRUG_VARIANT"]

def test_width():
    assert importlib.import_module(VARIANT + ".model").WIDTH == 8

def test_the_sandbox_holds_this_variant_alone():
    here = Path("experiments/grug")
    assert [str(p) for p in here.iterdir()] == ["experiments/grug/" + VARIANT.split(".")[-1]]
    assert not list(here.rglob("test_*.py"))
"""


def run(runner: RuleRunner, name: str, width: int) -> TestResult:
    here = f"experiments/grug/{name}"
    runner.write_files(
        {
            "tests/contract/test_width.py": SUITE_TEST,
            f"{here}/BUILD": "grug_variant(resolve='cpu')",
            f"{here}/model.py": f"WIDTH = {width}\n",
            f"{here}/train.py": "",
            f"{here}/launch.py": "",
            f"{here}/test_model.py": "",
        }
    )
    target = runner.get_target(Address(here, generated_name="contract"))
    field_set = ContractFieldSet.create(target)
    batch = ContractRequest.Batch("", (field_set,), partition_metadata=_EmptyMetadata())
    return runner.request(TestResult, [batch])


def test_a_variant_that_keeps_it_passes(runner: RuleRunner) -> None:
    result = run(runner, "keeps", 8)
    assert result.exit_code == 0, result.stdout
    assert "2 passed" in result.stdout or "3 passed" in result.stdout


def test_the_plumbings_suite_is_another(runner: RuleRunner) -> None:
    here = "experiments/grug/pipes"
    files = {
        "tests/contract/BUILD": "python_sources(name='suite', sources=['**/*.py'], resolve='cpu')",
        "tests/contract/test_width.py": SUITE_TEST,
        "tests/contract/plumbing/test_pipes.py": "def test_pipes(): assert False, 'a leak'\n",
        f"{here}/plumbing/pipes.py": "",
    }
    files |= {f"{here}/{name}.py": "" for name in ("model", "train", "launch")}
    runner.write_files({**files, f"{here}/BUILD": "grug_variant(resolve='cpu')"})
    target = runner.get_target(Address(here, generated_name="plumbing"))
    batch = ContractRequest.Batch(
        "", (ContractFieldSet.create(target),), partition_metadata=_EmptyMetadata()
    )
    result = runner.request(TestResult, [batch])
    assert "a leak" in result.stdout and "1 failed" in result.stdout


def test_a_variant_that_breaks_it_fails(runner: RuleRunner) -> None:
    result = run(runner, "breaks", 9)
    assert result.exit_code == 1
    assert "assert 9 == 8" in result.stdout
