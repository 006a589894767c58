"""The recipe's steps as goals: `fork`, `drift`, `upstream` and `retire`.

tools/lifecycle/ does each in the workspace itself, whole or not at all. These goals name the
variant to it and, before what it learned goes into its origin, run its tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pants.backend.python.goals.pytest_runner import PyTestRequest, PythonTestFieldSet
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex_environment import PythonExecutable
from pants.base.specs import Specs
from pants.core.goals.test import TestRequest, TestResult
from pants.core.util_rules.partitions import Partitions, _EmptyMetadata
from pants.engine.console import Console
from pants.engine.env_vars import CompleteEnvironmentVars
from pants.engine.goal import Goal, GoalSubsystem
from pants.engine.process import InteractiveProcess, InteractiveProcessResult
from pants.engine.rules import Effect, Get, MultiGet, Rule, collect_rules, goal_rule, rule
from pants.engine.target import AllTargets
from pants.option.option_types import BoolOption, EnumOption, StrListOption, StrOption

from grug.contract import ContractFieldSet, ContractRequest
from grug.variants import SelectedVariants, SelectedVariantsRequest
from grug.workspace import GrugSubsystem


@dataclass(frozen=True)
class CommandRequest:
    """One command of tools/lifecycle/, with its arguments."""

    argv: tuple[str, ...]


@rule
async def set_up_command(
    request: CommandRequest,
    grug: GrugSubsystem,
    python_setup: PythonSetup,
    environment: CompleteEnvironmentVars,
) -> InteractiveProcess:
    python = await Get(
        PythonExecutable,
        InterpreterConstraints,
        InterpreterConstraints(python_setup.interpreter_constraints),
    )
    module = f"{grug.tools.replace('/', '.')}.lifecycle"
    return InteractiveProcess(
        (python.path, "-B", "-m", module, *request.argv),
        env=environment,
        run_in_workspace=True,
    )


async def run_command(argv: tuple[str, ...]) -> int:
    """Its exit code. Part of the goal that calls it: only goals may have effects."""
    process = await Get(InteractiveProcess, CommandRequest(argv))
    result = await Effect(InteractiveProcessResult, InteractiveProcess, process)
    return result.exit_code


@dataclass(frozen=True)
class OneVariantRequest:
    specs: Specs
    goal: str


@dataclass(frozen=True)
class OneVariant:
    """The directory of the one variant a command line names, else the line that says to."""

    path: str
    fault: str = ""


@rule
async def one_variant(request: OneVariantRequest) -> OneVariant:
    paths: tuple[str, ...] = ()
    if request.specs and not request.specs.includes.from_change_detection:
        paths = (await Get(SelectedVariants, SelectedVariantsRequest(request.specs))).paths
    if len(paths) == 1:
        return OneVariant(paths[0])
    named = f"names {len(paths)} variants: " if paths else ""
    return OneVariant("", f"{named}name one: ./pants {request.goal} experiments/grug/NAME")


class ForkSubsystem(GoalSubsystem):
    name = "fork"
    help = "Copy a variant under a new name, with its entry in the ledger: ./pants fork ORIGIN."

    name_ = StrOption("--name", default="", help="Of the copy: lower case, an identifier.")
    bucket = StrOption(default="", help="The change bucket: the one part that the copy changes.")
    purpose = StrOption(default="", help="One sentence: the question the copy answers.")


class Fork(Goal):
    subsystem_cls = ForkSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def fork(console: Console, subsystem: ForkSubsystem, specs: Specs) -> Fork:
    origin = await Get(OneVariant, OneVariantRequest(specs, "fork"))
    if origin.fault:
        console.print_stderr(origin.fault)
        return Fork(exit_code=1)
    argv = (
        "fork",
        origin.path,
        f"--name={subsystem.name_}",
        f"--bucket={subsystem.bucket}",
        f"--purpose={subsystem.purpose}",
    )
    return Fork(exit_code=await run_command(argv))


class DriftFormat(Enum):
    text = "text"
    json = "json"


class DriftSubsystem(GoalSubsystem):
    name = "drift"
    help = (
        "Show what variants lack of their origins: each commit of the origin since the copy, hunk "
        "by hunk, as it would fit. All variants, or those named."
    )

    apply = StrListOption(
        help=(
            "Port this commit of the origin into the copies, by git's merge. `plumbing` brings "
            "what the origin's plumbing once was to what it is now."
        )
    )
    format = EnumOption(default=DriftFormat.text, help="For people, or json for machines.")


class Drift(Goal):
    subsystem_cls = DriftSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def drift(console: Console, subsystem: DriftSubsystem, specs: Specs) -> Drift:
    paths: tuple[str, ...] = ()
    if specs:
        paths = (await Get(SelectedVariants, SelectedVariantsRequest(specs))).paths
        if not paths:
            console.print_stderr("No variant there: ./pants variants lists them.")
            return Drift(exit_code=1)
    commits = (f"--apply={commit}" for commit in subsystem.apply)
    argv = ("drift", *paths, *commits, f"--format={subsystem.format.value}")
    return Drift(exit_code=await run_command(argv))


@dataclass(frozen=True)
class VariantTestsRequest:
    variant: str


@dataclass(frozen=True)
class VariantTests:
    """Addresses of a variant's tests, its contract among them, that fail."""

    failed: tuple[str, ...]


@rule
async def run_variant_tests(request: VariantTestsRequest, targets: AllTargets) -> VariantTests:
    own = [t for t in targets if t.address.spec_path == request.variant]
    tests = (PythonTestFieldSet.create(t) for t in own if PythonTestFieldSet.is_applicable(t))
    contracts = (ContractFieldSet.create(t) for t in own if ContractFieldSet.is_applicable(t))
    partitions = await Get(
        Partitions, TestRequest.PartitionRequest, PyTestRequest.PartitionRequest(tuple(tests))
    )
    batches = [
        *(PyTestRequest.Batch("", part.elements, part.metadata) for part in partitions),
        *(ContractRequest.Batch("", (contract,), _EmptyMetadata()) for contract in contracts),
    ]
    results = await MultiGet(Get(TestResult, TestRequest.Batch, batch) for batch in batches)
    failed = (address for r in results if r.exit_code for address in r.addresses)
    return VariantTests(tuple(sorted(address.spec for address in failed)))


class UpstreamSubsystem(GoalSubsystem):
    name = "upstream"
    help = (
        "Merge a variant's change into its origin, as edits to look at and commit: "
        "./pants upstream VARIANT. Runs the variant's tests first."
    )

    resolved = BoolOption(
        default=False, help="The conflicts of the merge are resolved: mark the entry superseded."
    )


class Upstream(Goal):
    subsystem_cls = UpstreamSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def upstream(console: Console, subsystem: UpstreamSubsystem, specs: Specs) -> Upstream:
    variant = await Get(OneVariant, OneVariantRequest(specs, "upstream"))
    if variant.fault:
        console.print_stderr(variant.fault)
        return Upstream(exit_code=1)
    if not subsystem.resolved:
        tests = await Get(VariantTests, VariantTestsRequest(variant.path))
        if tests.failed:
            console.print_stderr(
                f"{variant.path} fails {', '.join(tests.failed)}: nothing was merged. "
                f"See them with ./pants test {variant.path}::"
            )
            return Upstream(exit_code=1)
    argv = ("upstream", variant.path, *(("--resolved",) if subsystem.resolved else ()))
    return Upstream(exit_code=await run_command(argv))


class RetireSubsystem(GoalSubsystem):
    name = "retire"
    help = "Remove a variant; its entry in the ledger stays: ./pants retire VARIANT."

    verdict = StrOption(default="", help="What was learned: one sentence for the ledger.")
    keep_mentions = BoolOption(default=False, help="Retire it although other texts still name it.")


class Retire(Goal):
    subsystem_cls = RetireSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def retire(console: Console, subsystem: RetireSubsystem, specs: Specs) -> Retire:
    variant = await Get(OneVariant, OneVariantRequest(specs, "retire"))
    if variant.fault:
        console.print_stderr(variant.fault)
        return Retire(exit_code=1)
    keep = ("--keep-mentions",) if subsystem.keep_mentions else ()
    argv = ("retire", variant.path, f"--verdict={subsystem.verdict}", *keep)
    return Retire(exit_code=await run_command(argv))


def rules() -> Iterable[Rule]:
    return collect_rules()
