from __future__ import annotations

import pytest
from pants.backend.python.target_types import (
    PythonResolveField,
    PythonSourceTarget,
    PythonTestsTimeoutField,
    PythonTestTarget,
)
from pants.core.target_types import ResourceSourceField
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Address
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.target import Tags, TransitiveTargets, TransitiveTargetsRequest
from pants.testutil.rule_runner import RuleRunner

from grug.target_types import ContractSuiteField, DataSourceField, GrugContract, VariantData
from tests.plugin.cases.workspace import dependencies

TEMPLATE = {"model.py": "", "train.py": "", "launch.py": ""}


def write_variant(runner: RuleRunner, directory: str, build: str, files: dict[str, str]) -> None:
    runner.write_files({f"{directory}/{n}": t for n, t in {"BUILD": build, **files}.items()})


def file_target(runner: RuleRunner, directory: str, name: str):
    return runner.get_target(Address(directory, relative_file_path=name))


def test_one_line_makes_sources_tests_and_the_contract(runner: RuleRunner) -> None:
    directory = "experiments/grug/whole"
    files = {**TEMPLATE, "test_model.py": "", "conftest.py": "", "kernels/fast.py": ""}
    write_variant(runner, directory, "grug_variant()", files)
    assert type(file_target(runner, directory, "model.py")) is PythonSourceTarget
    assert type(file_target(runner, directory, "conftest.py")) is PythonSourceTarget
    assert type(file_target(runner, directory, "kernels/fast.py")) is PythonSourceTarget
    assert type(file_target(runner, directory, "test_model.py")) is PythonTestTarget
    contract = runner.get_target(Address(directory, generated_name="contract"))
    assert type(contract) is GrugContract


def test_plumbing_is_tested_in_the_template_and_where_it_differs(runner: RuleRunner) -> None:
    for name, line in (("base", "A = 1"), ("alike", "A = 1"), ("other", "A = 2")):
        files = {**TEMPLATE, "plumbing/data.py": line, "planning/plan.py": ""}
        write_variant(runner, f"experiments/grug/{name}", "grug_variant()", files)
    suites = {}
    for name in ("base", "other"):
        plumbing = Address(f"experiments/grug/{name}", generated_name="plumbing")
        suites[name] = runner.get_target(plumbing)[ContractSuiteField].value
    assert suites == dict.fromkeys(("base", "other"), "tests/contract/plumbing")
    with pytest.raises(ExecutionError, match="plumbing"):
        runner.get_target(Address("experiments/grug/alike", generated_name="plumbing"))
    write_variant(runner, "experiments/grug/alike", "grug_variant()", {"planning/new.py": ""})
    runner.get_target(Address("experiments/grug/alike", generated_name="plumbing"))


def test_fields_reach_what_they_are_for(runner: RuleRunner) -> None:
    directory = "experiments/grug/fields"
    build = "grug_variant(resolve='cpu', timeout=77, tags=['slow'], accelerators=['cpu', 'tpu'])"
    write_variant(runner, directory, build, {**TEMPLATE, "test_model.py": ""})
    model, test = (file_target(runner, directory, name) for name in ("model.py", "test_model.py"))
    contract = runner.get_target(Address(directory, generated_name="contract"))
    assert [t[PythonResolveField].value for t in (model, test, contract)] == ["cpu"] * 3
    assert [t[PythonTestsTimeoutField].value for t in (test, contract)] == [77] * 2
    assert not model.has_field(PythonTestsTimeoutField)
    assert all(t[Tags].value == ("slow",) for t in (model, test, contract))


def test_an_unknown_accelerator_is_named(runner: RuleRunner) -> None:
    write_variant(runner, "experiments/grug/odd", "grug_variant(accelerators=['abacus'])", TEMPLATE)
    with pytest.raises(ExecutionError, match="names 'abacus'.*has cpu, gpu, tpu"):
        file_target(runner, "experiments/grug/odd", "model.py")
    runner.write_files({"experiments/grug/odd/BUILD": "grug_variant()"})


def test_a_speedrun_of_one_file_has_no_contract(runner: RuleRunner) -> None:
    directory = "experiments/speedrun/2026-01-31_fast"
    write_variant(runner, directory, "grug_variant()", {"run.py": "import json\n"})
    assert type(file_target(runner, directory, "run.py")) is PythonSourceTarget
    with pytest.raises(ExecutionError, match="contract"):
        runner.get_target(Address(directory, generated_name="contract"))


def test_who_records_a_run_has_all_sources_and_the_lock(runner: RuleRunner) -> None:
    directory = "experiments/grug/recorded"
    files = {**TEMPLATE, "plumbing/record.py": "", "test_model.py": "", "conftest.py": ""}
    write_variant(runner, directory, "grug_variant()", files)
    record = dependencies(runner, Address(directory, relative_file_path="plumbing/record.py"))
    assert record == [
        f"{directory}/launch.py",
        f"{directory}/model.py",
        f"{directory}/train.py",
        "tools/locks:tools-lock",
    ]
    assert dependencies(runner, Address(directory, relative_file_path="model.py")) == []


DATA = {
    "table.json": "[1]",
    "kernels/two words.txt": "",
    "kernels/caf\u00e9.csv": "",
    "zz[1]*?.bin": "",
    "!a#b:c@d.md": "",
}
NO_DATA = {".hidden": "", ".cache/x.json": "", "__pycache__/x.json": "", "kernels/BUILD.x": ""}


def test_every_other_file_is_data_of_all_python_files(runner: RuleRunner) -> None:
    here = "experiments/grug/data"
    files = {**TEMPLATE, "test_model.py": "", **DATA, **NO_DATA}
    write_variant(runner, here, "grug_variant(resolve='cpu')", files)
    addresses = {name: Address(here, relative_file_path=name) for name in DATA}
    expected = sorted(address.spec for address in addresses.values())
    for name in ("model.py", "test_model.py"):
        found = dependencies(runner, Address(here, relative_file_path=name))
        assert sorted(spec for spec in found if ".py" not in spec) == expected
    for name, address in addresses.items():
        target = runner.get_target(address)
        assert type(target) is VariantData
        sources = runner.request(
            SourceFiles,
            [
                SourceFilesRequest(
                    [target[DataSourceField]], for_sources_types=(ResourceSourceField,)
                )
            ],
        )
        assert sources.files == (f"{here}/{name}",)
        assert target[DataSourceField].filespec_matcher.matches([f"{here}/{name}"])
    contract = runner.get_target(Address(here, generated_name="contract"))
    transitive = runner.request(TransitiveTargets, [TransitiveTargetsRequest([contract.address])])
    specs = {target.address.spec for target in transitive.closure}
    assert specs >= set(expected)


def test_data_that_a_build_file_names_is_still_right(runner: RuleRunner) -> None:
    here = "experiments/grug/named"
    build = "resource(name='table', source='table.json')\ngrug_variant(dependencies=[':table'])"
    write_variant(runner, here, build, {**TEMPLATE, "table.json": "[]"})
    found = dependencies(runner, Address(here, relative_file_path="model.py"))
    assert sorted(found) == [f"{here}/table.json", f"{here}:table"]


def test_the_contract_reaches_the_variant_and_the_suite(runner: RuleRunner) -> None:
    directory = "experiments/grug/held"
    write_variant(
        runner, directory, "grug_variant(resolve='cpu')", {**TEMPLATE, "test_model.py": ""}
    )
    result = dependencies(runner, Address(directory, generated_name="contract"))
    assert result == [
        f"{directory}/launch.py",
        f"{directory}/model.py",
        f"{directory}/train.py",
        "tests/contract:suite",
    ]
