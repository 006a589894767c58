"""Forbids dependencies: variants use only themselves, tools only tools, and only tests variants.

Every goal that resolves dependencies stops at a forbidden one. `lint` lists all of them by file and
line, without stopping the other linters. tools/isolation/ reads each variant's sources; this file
compares addresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementModulesField,
    PythonRequirementsField,
    PythonRunGoalUseSandboxField,
    PythonSourceField,
)
from pants.base.build_environment import get_buildroot
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.target_types import (
    FilesGeneratorTarget,
    FileTarget,
    ResourcesGeneratorTarget,
    ResourceTarget,
)
from pants.core.util_rules.partitions import PartitionerType
from pants.engine.addresses import Address
from pants.engine.fs import PathGlobs, Snapshot
from pants.engine.process import (
    FallibleProcessResult,
    Process,
    ProcessCacheScope,
    ProcessResult,
)
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    Dependencies,
    FieldSet,
    ValidatedDependencies,
    ValidateDependenciesRequest,
    WrappedTarget,
    WrappedTargetRequest,
)
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from grug.refusals import Refused
from grug.target_types import ContractVariantField, GrugVariant
from grug.tool import OwnTool
from grug.workspace import GrugSubsystem, directory_of

# Targets that a variant's BUILD file may declare; grug_variant makes all that it needs besides.
ALLOWED_TARGETS = (
    GrugVariant,
    FileTarget,
    FilesGeneratorTarget,
    ResourceTarget,
    ResourcesGeneratorTarget,
)


class IsolationError(Refused):
    """A dependency that the workspace's rules forbid; the message names the rule and the remedy."""


@dataclass(frozen=True)
class VariantScanRequest:
    """Asks to scan a variant's files; with `today` (YYYY-MM-DD), for overdue exemptions too."""

    variant: str
    today: str = ""


@dataclass(frozen=True)
class VariantScan:
    """Lines `path:line: message`; a finding is a pair of its path and its line."""

    findings: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    has_exemptions: bool

    @staticmethod
    def from_result(result: FallibleProcessResult) -> VariantScan:
        if result.exit_code not in (0, 1):
            raise IsolationError(f"tools/isolation failed:\n{result.stderr.decode()}")
        report = json.loads(result.stdout)

        def line(item: dict[str, Any]) -> str:
            return f"{item['path']}:{item['line']}: {item['message']}"

        return VariantScan(
            tuple((item["path"], line(item)) for item in report["findings"]),
            tuple(line(item) for item in report["problems"]),
            bool(report["exemptions"]),
        )


@rule(desc="Read a variant for ways out of it", level=LogLevel.DEBUG)
async def scan_variant(request: VariantScanRequest) -> VariantScan:
    snapshot = await Get(Snapshot, PathGlobs([f"{request.variant}/**/*.py"]))
    today_flags = (f"--today={request.today}",) if request.today else ()
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "isolation",
            ("scan", f"--root={get_buildroot()}", *today_flags, request.variant, *snapshot.files),
            description=f"Read {request.variant} for ways out of it",
            input_digest=snapshot.digest,
        ),
    )
    return VariantScan.from_result(result)


@dataclass(frozen=True)
class IsolationFieldSet(FieldSet):
    required_fields = (Dependencies,)

    contract: ContractVariantField
    use_sandbox: PythonRunGoalUseSandboxField


class ValidateIsolation(ValidateDependenciesRequest):
    field_set_type = IsolationFieldSet


async def _validate_kind(
    address: Address, variant: str, field_set: IsolationFieldSet, python_setup: PythonSetup
) -> None:
    generator = address.maybe_convert_to_target_generator()
    declared = await Get(
        WrappedTarget, WrappedTargetRequest(generator, description_of_origin="grug isolation")
    )
    if not isinstance(declared.target, ALLOWED_TARGETS):
        raise IsolationError(
            f"{generator.spec} is a {declared.target.alias}.\n\n"
            f"Rule: {variant}/BUILD declares a grug_variant, files and resources, nothing else.\n"
            "Remedy: remove that target; grug_variant makes those of its Python files."
        )
    use_sandbox = field_set.use_sandbox.value
    if use_sandbox is None:
        use_sandbox = python_setup.default_run_goal_use_sandbox
    if not use_sandbox:
        raise IsolationError(
            f"{address.spec} would run outside the sandbox, where every file of the workspace is "
            "at hand.\n\nRule: a variant runs with its own files alone.\n"
            "Remedy: remove run_goal_use_sandbox from its BUILD file, and "
            "default_run_goal_use_sandbox from pants.toml."
        )


@rule
async def validate_isolation(
    request: ValidateIsolation, grug: GrugSubsystem, python_setup: PythonSetup
) -> ValidatedDependencies:
    field_set, address = request.field_set, request.field_set.address
    variant = grug.variant_of(f"{directory_of(address)}/")
    if variant is None:
        _validate_outside(address, request.dependencies, grug)
        return ValidatedDependencies()
    await _validate_kind(address, variant, field_set, python_setup)
    forbidden = [
        dependency
        for dependency in request.dependencies
        if not _may_use(address, variant, dependency, field_set, grug)
    ]
    scan = await Get(VariantScan, VariantScanRequest(variant))
    own_path = address.filename if address.is_file_target else None
    # A link belongs to no target, and any of the variant's targets may use it.
    findings = [line for path, line in scan.findings if path == own_path or _is_link(line)]
    if not (forbidden or findings):
        return ValidatedDependencies()
    # A dependency that an import line already names is not reported twice.
    unnamed = [d for d in forbidden if not any(_package(d) in line for line in findings)]
    lines = [*findings, *(f"{address.spec}: depends on {d.spec}" for d in unnamed)]
    raise IsolationError(
        "\n".join(lines)
        + f"\n\nRule: {variant}/ reaches only its own files and third-party requirements.\n"
        f"Remedy: copy the code into {variant}/ and import it from there. Until then no goal that "
        f"needs these files runs; `./pants lint {variant}::` lists every such line."
    )


def _is_link(line: str) -> bool:
    return ": is a symbolic link to " in line


def _package(dependency: Address) -> str:
    """The package of a target's file, such as `experiments.grug.base`."""
    return directory_of(dependency).replace("/", ".")


def _may_use(
    address: Address,
    variant: str,
    dependency: Address,
    field_set: IsolationFieldSet,
    grug: GrugSubsystem,
) -> bool:
    if dependency.spec_path == grug.requirements:
        return True
    if field_set.contract.value and dependency.spec_path == grug.contract:
        return True  # no variant can edit the contract's tests, which test the variant
    return grug.variant_of(f"{directory_of(dependency)}/") == variant


def _validate_outside(
    address: Address, dependencies: Iterable[Address], grug: GrugSubsystem
) -> None:
    """The rules for code outside variants."""
    own_directory = f"{directory_of(address)}/"

    def under(directory: str, path: str = own_directory) -> bool:
        return path.startswith(f"{directory}/")

    if under(grug.requirements):
        allowed, rule_text = grug.requirements, "a requirement depends on requirements only"
    elif under(grug.tests) or address.spec == grug.launcher:
        return
    elif under(grug.tools):
        allowed, rule_text = grug.tools, "tools depend on tools only"
    else:
        allowed, rule_text = "", "only tests and the launcher depend on variants"

    def is_forbidden(dependency: Address) -> bool:
        path = f"{directory_of(dependency)}/"
        return not under(allowed, path) if allowed else grug.variant_of(path) is not None

    forbidden = [dependency.spec for dependency in dependencies if is_forbidden(dependency)]
    if forbidden:
        raise IsolationError(
            f"{address.spec} depends on {', '.join(forbidden)}.\n\n"
            f"Rule: {rule_text}, so that an experiment can be changed or deleted without looking "
            "further.\nRemedy: copy the code, or pass it data (a file, a path) instead."
        )


@dataclass(frozen=True)
class RequirementFieldSet(FieldSet):
    required_fields = (Dependencies, PythonRequirementsField)

    requirements: PythonRequirementsField
    modules: PythonRequirementModulesField


class ValidateRequirement(ValidateDependenciesRequest):
    field_set_type = RequirementFieldSet


@rule
async def validate_requirement(
    request: ValidateRequirement, grug: GrugSubsystem
) -> ValidatedDependencies:
    """Refuses a requirement that leads back into the workspace instead of to a third party."""
    field_set = request.field_set
    tops = {path.split("/")[0] for path in (*grug.roots, grug.tools, grug.tests)}
    local = [str(r) for r in field_set.requirements.value if (r.url or "").startswith("file:")]
    modules = [m for m in field_set.modules.value or () if m.split(".")[0] in tops]
    if local or modules:
        raise IsolationError(
            f"{field_set.address.spec} brings code of the workspace in as a third party: "
            f"{', '.join([*local, *modules])}.\n\n"
            "Rule: requirements come from the package index.\n"
            "Remedy: copy the code into the variant that needs it."
        )
    return ValidatedDependencies()


class IsolationSubsystem(Subsystem):
    options_scope = "grug-isolation"
    name = "grug-isolation"
    help = "Lists every way in which a variant reaches outside its directory."

    skip = SkipOption("lint")


@dataclass(frozen=True)
class IsolationLintFieldSet(FieldSet):
    required_fields = (PythonSourceField,)

    source: PythonSourceField


class IsolationLintRequest(LintTargetsRequest):
    field_set_type = IsolationLintFieldSet
    tool_subsystem = IsolationSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@dataclass(frozen=True)
class TodayRequest:
    pass


@dataclass(frozen=True)
class Today:
    date: str  # YYYY-MM-DD


@rule
async def find_today(_: TodayRequest) -> Today:
    """Runs `date` once per session: the daemon would keep a rule's own answer for days."""
    result = await Get(
        ProcessResult,
        Process(
            ("/bin/date", "+%F"),
            description="Ask for today's date",
            cache_scope=ProcessCacheScope.PER_SESSION,
            level=LogLevel.TRACE,
        ),
    )
    return Today(result.stdout.decode().strip())


async def _links(variants: Iterable[str]) -> list[str]:
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "isolation",
            ("links", f"--root={get_buildroot()}", *variants),
            description="Look for symbolic links out of variants",
            fresh=True,
        ),
    )
    return [line for _, line in VariantScan.from_result(result).findings]


@rule(desc="Lint the isolation of variants", level=LogLevel.DEBUG)
async def lint_isolation(
    request: IsolationLintRequest.Batch[IsolationLintFieldSet, Any],
    grug: GrugSubsystem,
) -> LintResult:
    paths = (field_set.source.file_path for field_set in request.elements)
    variants = sorted({variant for path in paths if (variant := grug.variant_of(path))})
    scans = await MultiGet(Get(VariantScan, VariantScanRequest(variant)) for variant in variants)
    # Where links lead, and what day it is, shows in no file's content: ask each time.
    links = await _links(variants) if variants else ()
    exempted = [variant for variant, scan in zip(variants, scans) if scan.has_exemptions]
    if exempted:
        today = await Get(Today, TodayRequest())
        scans += await MultiGet(
            Get(VariantScan, VariantScanRequest(variant, today.date)) for variant in exempted
        )
    findings = {line for scan in scans for _, line in scan.findings if not _is_link(line)}
    lines = sorted({*findings, *links, *(line for scan in scans for line in scan.problems)})
    return LintResult(
        exit_code=1 if lines else 0,
        stdout="\n".join(lines),
        stderr="",
        linter_name=request.tool_name,
        partition_description=None,
    )


def rules() -> Iterable[Rule | UnionRule]:
    return (
        *collect_rules(),
        *IsolationLintRequest.rules(),
        UnionRule(ValidateDependenciesRequest, ValidateIsolation),
        UnionRule(ValidateDependenciesRequest, ValidateRequirement),
    )
