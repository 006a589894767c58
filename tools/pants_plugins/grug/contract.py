"""`test` of a variant's `#contract`: the workspace's own tests against that variant.

The tests lie outside every variant, so no variant can edit them. They run in one sandbox with its
sources, and the environment variable GRUG_VARIANT tells them which variant that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.goals.pytest_runner import TestMetadata, TestSetup, TestSetupRequest
from pants.backend.python.subsystems.pytest import PythonTestFieldSet
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonResolveField,
    PythonTestsBatchCompatibilityTagField,
    PythonTestsExtraEnvVarsField,
    PythonTestSourceField,
    PythonTestsTimeoutField,
    PythonTestsXdistConcurrencyField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.core.goals.test import (
    RuntimePackageDependenciesField,
    TestDebugRequest,
    TestFieldSet,
    TestRequest,
    TestResult,
    TestSubsystem,
)
from pants.core.util_rules.environments import EnvironmentField
from pants.engine.addresses import Address
from pants.engine.fs import DigestSubset, PathGlobs, Paths, Snapshot
from pants.engine.process import FallibleProcessResult, InteractiveProcess, Process
from pants.engine.rules import Get, Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from grug.target_types import ContractSuiteField, ContractVariantField
from grug.workspace import GrugSubsystem


class ContractSubsystem(Subsystem):
    options_scope = "contract"
    name = "contract"
    help = "The tests that every variant must pass."

    skip = SkipOption("test")


@dataclass(frozen=True)
class ContractFieldSet(TestFieldSet):
    required_fields = (ContractVariantField,)

    variant: ContractVariantField
    suite: ContractSuiteField
    interpreter_constraints: InterpreterConstraintsField
    resolve: PythonResolveField
    extra_env_vars: PythonTestsExtraEnvVarsField
    timeout: PythonTestsTimeoutField


class ContractRequest(TestRequest):
    tool_subsystem = ContractSubsystem  # ty: ignore[invalid-assignment]
    field_set_type = ContractFieldSet
    supports_debug = True


@dataclass(frozen=True)
class ContractSetupRequest:
    field_set: ContractFieldSet
    is_debug: bool


@rule
async def set_up_contract(
    request: ContractSetupRequest,
    grug: GrugSubsystem,
    python_setup: PythonSetup,
    test_subsystem: TestSubsystem,
) -> TestSetup:
    """The suite's files, run by Pants' own pytest rule as if the variant owned them."""
    field_set = request.field_set
    directory = field_set.suite.value or grug.contract
    tests = await Get(Paths, PathGlobs([f"{directory}/test_*.py"]))
    suite = Address(directory)
    # A whole suite runs in one process, for which Pants adds up the files' timeouts.
    longest = test_subsystem.timeout_maximum or test_subsystem.timeout_default
    total = field_set.timeout.value or longest
    per_file = math.ceil(total / max(1, len(tests.files))) if total else None
    elements = tuple(
        PythonTestFieldSet(
            address=field_set.address,
            sources=PythonTestSourceField(path[len(directory) + 1 :], suite),
            source=PythonTestSourceField(path[len(directory) + 1 :], suite),
            interpreter_constraints=field_set.interpreter_constraints,
            timeout=PythonTestsTimeoutField(per_file, suite),
            runtime_package_dependencies=RuntimePackageDependenciesField(None, suite),
            extra_env_vars=PythonTestsExtraEnvVarsField(None, suite),
            xdist_concurrency=PythonTestsXdistConcurrencyField(None, suite),
            batch_compatibility_tag=PythonTestsBatchCompatibilityTagField(None, suite),
            resolve=field_set.resolve,
            environment=EnvironmentField(None, suite),
        )
        for path in tests.files
    )
    metadata = TestMetadata(
        interpreter_constraints=InterpreterConstraints.create_from_compatibility_fields(
            [field_set.interpreter_constraints], python_setup
        ),
        extra_env_vars=field_set.extra_env_vars.sorted(),
        xdist_concurrency=None,
        resolve=field_set.resolve.normalized_value(python_setup),
        environment=EnvironmentField(None, suite).value,
    )
    environment = FrozenDict({"GRUG_VARIANT": (field_set.variant.value or "").replace("/", ".")})
    return await Get(
        TestSetup,
        TestSetupRequest(elements, metadata, is_debug=request.is_debug, extra_env=environment),
    )


@rule(desc="Run the contract tests", level=LogLevel.DEBUG)
async def run_contract(
    batch: ContractRequest.Batch[ContractFieldSet, Any], test_subsystem: TestSubsystem
) -> TestResult:
    (field_set,) = batch.elements
    setup = await Get(TestSetup, ContractSetupRequest(field_set, is_debug=False))
    result = await Get(FallibleProcessResult, Process, setup.process)
    report = PathGlobs([setup.results_file_name or ""])
    return TestResult.from_fallible_process_result(
        result,
        field_set.address,
        test_subsystem.output,
        xml_results=await Get(Snapshot, DigestSubset(result.output_digest, report)),
    )


@rule(desc="Set up the contract tests to run interactively", level=LogLevel.DEBUG)
async def debug_contract(
    batch: ContractRequest.Batch[ContractFieldSet, Any],
) -> TestDebugRequest:
    (field_set,) = batch.elements
    setup = await Get(TestSetup, ContractSetupRequest(field_set, is_debug=True))
    return TestDebugRequest(
        InteractiveProcess.from_process(
            setup.process, forward_signals_to_process=False, restartable=True
        )
    )


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *ContractRequest.rules())
