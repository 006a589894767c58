"""ty: `check` checks types, with third-party code from each target's resolve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonResolveField,
    PythonSourceField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.partition import (
    _partition_by_interpreter_constraints_and_resolve as by_interpreter_and_resolve,
)
from pants.backend.python.util_rules.pex import Pex, PexRequest, VenvPex, VenvPexProcess
from pants.backend.python.util_rules.pex_environment import PexEnvironment
from pants.backend.python.util_rules.pex_from_targets import RequirementsPexRequest
from pants.backend.python.util_rules.python_sources import (
    PythonSourceFiles,
    PythonSourceFilesRequest,
)
from pants.core.goals.check import CheckRequest, CheckResult, CheckResults
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Addresses
from pants.engine.fs import Digest, MergeDigests, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import CoarsenedTargets, CoarsenedTargetsRequest, FieldSet
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption, StrOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel
from pants.util.strutil import pluralize

from grug.tool import tool_pex


class TySubsystem(Subsystem):
    options_scope = "ty"
    name = "ty"
    help = "The ty type checker (https://docs.astral.sh/ty)."

    skip = SkipOption("check")
    config = StrOption(default="tools/ty.toml", help="The configuration, from the build root.")


@dataclass(frozen=True)
class TyFieldSet(FieldSet):
    required_fields = (PythonSourceField,)

    source: PythonSourceField
    resolve: PythonResolveField
    interpreter_constraints: InterpreterConstraintsField


class TyRequest(CheckRequest):
    field_set_type = TyFieldSet
    tool_name = TySubsystem.options_scope


@dataclass(frozen=True)
class TyPartition:
    """Sources that share a resolve and interpreters, so that their imports mean the same."""

    resolve: str
    interpreter_constraints: InterpreterConstraints
    field_sets: tuple[TyFieldSet, ...]


@dataclass(frozen=True)
class ThirdParty:
    """The directory, in Pex's cache, of a virtual environment that ty reads packages from."""

    venv: str


@rule
async def find_third_party(partition: TyPartition, pex_env: PexEnvironment) -> ThirdParty:
    constraints = partition.interpreter_constraints
    requirements = await Get(
        Pex,
        RequirementsPexRequest(
            (fs.address for fs in partition.field_sets),
            hardcoded_interpreter_constraints=constraints,
        ),
    )
    venv = await Get(
        VenvPex,
        PexRequest(
            output_filename="requirements_venv.pex",
            internal_only=True,
            pex_path=[requirements],
            interpreter_constraints=constraints,
        ),
    )
    complete = pex_env.in_sandbox(working_directory=None)
    return ThirdParty(f"{complete.pex_root}/{venv.venv_rel_dir}")


@rule(desc="Check types with ty", level=LogLevel.DEBUG)
async def check_partition(
    partition: TyPartition, subsystem: TySubsystem, python_setup: PythonSetup
) -> CheckResult:
    addresses = Addresses(fs.address for fs in partition.field_sets)
    ty, third_party, coarsened, config, roots = await MultiGet(
        Get(VenvPex, PexRequest, tool_pex("ty", "ty")),
        Get(ThirdParty, TyPartition, partition),
        Get(CoarsenedTargets, CoarsenedTargetsRequest(addresses)),
        Get(Digest, PathGlobs([subsystem.config])),
        Get(SourceFiles, SourceFilesRequest(fs.source for fs in partition.field_sets)),
    )
    closure = await Get(PythonSourceFiles, PythonSourceFilesRequest(coarsened.closure()))
    digest = await Get(Digest, MergeDigests((closure.source_files.snapshot.digest, config)))
    oldest = partition.interpreter_constraints.minimum_python_version(
        python_setup.interpreter_versions_universe
    )
    result = await Get(
        FallibleProcessResult,
        VenvPexProcess(
            ty,
            argv=(
                "check",
                f"--config-file={subsystem.config}",
                f"--python={third_party.venv}",
                f"--python-version={oldest}",
                *(f"--extra-search-path={root}" for root in closure.source_roots if root != "."),
                *roots.files,
            ),
            input_digest=digest,
            description=f"Run ty on {pluralize(len(roots.files), 'file')} of {partition.resolve}",
            level=LogLevel.DEBUG,
        ),
    )
    return CheckResult.from_fallible_process_result(result, partition_description=partition.resolve)


@rule(desc="Check types with ty", level=LogLevel.DEBUG)
async def ty_check(
    request: TyRequest, subsystem: TySubsystem, python_setup: PythonSetup
) -> CheckResults:
    if subsystem.skip:
        return CheckResults([], checker_name=request.tool_name)
    groups = by_interpreter_and_resolve(request.field_sets, python_setup)
    partitions = (TyPartition(resolve, ics, tuple(fs)) for (resolve, ics), fs in groups.items())
    results = await MultiGet(Get(CheckResult, TyPartition, p) for p in partitions)
    return CheckResults(results, checker_name=request.tool_name)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), UnionRule(CheckRequest, TyRequest))
