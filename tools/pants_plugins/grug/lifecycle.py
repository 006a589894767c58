"""The recipe's steps as goals: `fork`, `drift`, `upstream`, `retire`, `rename` and `relink`.

tools/lifecycle/ carries out each in the workspace, all or nothing. These goals tell it the variant
and, before a merge into the origin, run the variant's tests.
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
from pants.util.frozendict import FrozenDict

from grug.contract import ContractFieldSet, ContractRequest
from grug.diff import PairSizes, PairSizesRequest
from grug.variants import (
    AllVariants,
    SelectedVariants,
    SelectedVariantsRequest,
    unknown_directories,
)
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
        env=_told(environment, grug.base_branch),
        run_in_workspace=True,
    )


def _told(environment: CompleteEnvironmentVars, base_branch: str) -> FrozenDict[str, str]:
    """The environment, with the option for the tools, which cannot ask Pants for it."""
    told = {"PANTS_GRUG_BASE_BRANCH": base_branch} if base_branch else {}
    return FrozenDict({**environment, **told})


async def run_command(argv: tuple[str, ...]) -> int:
    """Runs a command, only for goals, which alone may have effects; gives its exit code."""
    process = await Get(InteractiveProcess, CommandRequest(argv))
    result = await Effect(InteractiveProcessResult, InteractiveProcess, process)
    return result.exit_code


async def measure(path: str, variants: AllVariants) -> tuple[str, ...]:
    """The flag with the sizes to keep of a living variant and its origin, where it is one."""
    if all(target.address.spec_path != path for target in variants):
        return ()
    sizes = await Get(PairSizes, PairSizesRequest(path))
    return (f"--sizes={sizes.json}",)


@dataclass(frozen=True)
class OneVariantRequest:
    specs: Specs
    goal: str


@dataclass(frozen=True)
class OneVariant:
    """The directory of the one variant that a command line names, or a message asking for one.

    A directory that no variant has is handed on: the tool knows what the ledger says of it.
    """

    path: str
    fault: str = ""


@rule
async def one_variant(request: OneVariantRequest, variants: AllVariants) -> OneVariant:
    paths: tuple[str, ...] = ()
    if request.specs and not request.specs.includes.from_change_detection:
        known = tuple(target.address.spec_path for target in variants)
        if strangers := unknown_directories(request.specs, known):
            return OneVariant(strangers[0])
        paths = (await Get(SelectedVariants, SelectedVariantsRequest(request.specs))).paths
    if len(paths) == 1:
        return OneVariant(paths[0])
    prefix = f"names {len(paths)} variants: " if paths else ""
    return OneVariant("", f"{prefix}name one: ./pants {request.goal} experiments/grug/NAME")


class CommandSubsystem(GoalSubsystem):
    """The options of each goal that writes."""

    stage = BoolOption(
        default=False, help="Add to git's index just what the goal wrote or removed."
    )

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--stage",) if self.stage else ()


class ForkSubsystem(CommandSubsystem):
    name = "fork"
    help = "Copy a variant under a new name and add its ledger entry: ./pants fork ORIGIN."

    name_ = StrOption(
        "--name", default="", fromfile=False, help="Name of the copy: a lower-case identifier."
    )
    bucket = StrOption(
        default="",
        fromfile=False,
        help=(
            "Change bucket, the one part that the copy changes: `attention/masking`, "
            "`block wiring/norm ordering`, `MLP/activation`, `loss kernel`, "
            "`optimizer/training loop` or `launch/config`."
        ),
    )
    # A sentence may begin with `@`, which elsewhere names a file that holds the value.
    purpose = StrOption(
        default="", fromfile=False, help="Question that the copy answers, in one sentence."
    )


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
        *subsystem.flags,
    )
    return Fork(exit_code=await run_command(argv))


class DriftFormat(Enum):
    text = "text"
    json = "json"


class DriftSubsystem(CommandSubsystem):
    name = "drift"
    help = (
        "Show which commits of their origins variants lack: each commit since the copy was made, "
        "hunk by hunk, as it would apply. Takes the variants that are named, or all."
    )

    apply = StrListOption(
        help=(
            "Commit of the origin to merge into the copies. Or `plumbing`: each file of a copy's "
            "plumbing that equals an older version of the origin's becomes the present one."
        )
    )
    decline = StrListOption(
        help="Note in the ledger that the named copies do without this commit of the origin."
    )
    reason = StrOption(default="", help="Reason for `--drift-decline`, in one sentence.")
    synced = StrOption(
        default="",
        help=(
            "Note in the ledger that all of the origin up to this commit was looked at for the "
            "named copies, as after a conflict that you resolved."
        ),
    )
    format = EnumOption(
        default=DriftFormat.text, help="Form of the list: text for people, json for programs."
    )


class Drift(Goal):
    subsystem_cls = DriftSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def drift(
    console: Console, subsystem: DriftSubsystem, specs: Specs, variants: AllVariants
) -> Drift:
    paths: tuple[str, ...] = ()
    if specs:
        known = tuple(target.address.spec_path for target in variants)
        paths = unknown_directories(specs, known)
        if not paths:
            paths = (await Get(SelectedVariants, SelectedVariantsRequest(specs))).paths
        if not paths:
            console.print_stderr("No variant there: ./pants variants lists them.")
            return Drift(exit_code=1)
    flags = [
        *(f"--apply={commit}" for commit in subsystem.apply),
        *(f"--decline={commit}" for commit in subsystem.decline),
        f"--reason={subsystem.reason}",
        f"--synced={subsystem.synced}",
        *subsystem.flags,
    ]
    argv = ("drift", *paths, *flags, f"--format={subsystem.format.value}")
    return Drift(exit_code=await run_command(argv))


@dataclass(frozen=True)
class VariantTestsRequest:
    variant: str


@dataclass(frozen=True)
class VariantTests:
    """Addresses of a variant's failing tests, including its contract."""

    failed: tuple[str, ...]


@rule
async def run_variant_tests(request: VariantTestsRequest, targets: AllTargets) -> VariantTests:
    members = [t for t in targets if t.address.spec_path == request.variant]
    tests = (PythonTestFieldSet.create(t) for t in members if PythonTestFieldSet.is_applicable(t))
    contracts = (ContractFieldSet.create(t) for t in members if ContractFieldSet.is_applicable(t))
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


class UpstreamSubsystem(CommandSubsystem):
    name = "upstream"
    help = (
        "Merge what a variant changed into its origin, as edits to look at and commit: "
        "./pants upstream VARIANT. Runs the variant's tests first."
    )

    verdict = StrOption(
        default="", fromfile=False, help="Sentence for the ledger on what was learned."
    )
    resolved = BoolOption(
        default=False, help="Mark the entry superseded, after you resolved the merge's conflicts."
    )


class Upstream(Goal):
    subsystem_cls = UpstreamSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def upstream(
    console: Console, subsystem: UpstreamSubsystem, specs: Specs, variants: AllVariants
) -> Upstream:
    variant = await Get(OneVariant, OneVariantRequest(specs, "upstream"))
    if variant.fault:
        console.print_stderr(variant.fault)
        return Upstream(exit_code=1)
    argv = ("upstream", variant.path, f"--verdict={subsystem.verdict}", *subsystem.flags)
    if subsystem.resolved:
        argv = (*argv, "--resolved")
    else:
        # What takes no time to find is found before the tests run.
        if code := await run_command((*argv, "--check")):
            return Upstream(exit_code=code)
        tests = await Get(VariantTests, VariantTestsRequest(variant.path))
        if tests.failed:
            console.print_stderr(
                f"{variant.path} fails {', '.join(tests.failed)}: nothing was merged. "
                f"See them with ./pants test {variant.path}::"
            )
            return Upstream(exit_code=1)
    sizes = await measure(variant.path, variants)
    return Upstream(exit_code=await run_command((*argv, *sizes)))


class RetireSubsystem(CommandSubsystem):
    name = "retire"
    help = "Remove a variant and keep its entry in the ledger: ./pants retire VARIANT."

    verdict = StrOption(
        default="", fromfile=False, help="What was learned, in one sentence for the ledger."
    )
    keep_mentions = BoolOption(
        default=False, help="Retire the variant although other texts still name it."
    )


class Retire(Goal):
    subsystem_cls = RetireSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def retire(
    console: Console, subsystem: RetireSubsystem, specs: Specs, variants: AllVariants
) -> Retire:
    variant = await Get(OneVariant, OneVariantRequest(specs, "retire"))
    if variant.fault:
        console.print_stderr(variant.fault)
        return Retire(exit_code=1)
    keep = ("--keep-mentions",) if subsystem.keep_mentions else ()
    sizes = await measure(variant.path, variants)
    flags = (f"--verdict={subsystem.verdict}", *keep, *sizes, *subsystem.flags)
    return Retire(exit_code=await run_command(("retire", variant.path, *flags)))


class RelinkSubsystem(CommandSubsystem):
    name = "relink"
    help = (
        "Name again, by content, the commits that the ledger and the run summaries name and that a "
        "squash merge or a rebase dropped; keep what the main branch lacks."
    )


class Relink(Goal):
    subsystem_cls = RelinkSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def relink(console: Console, subsystem: RelinkSubsystem, specs: Specs) -> Relink:
    if specs:
        console.print_stderr("relink takes no variant: it looks at all records.")
        return Relink(exit_code=1)
    return Relink(exit_code=await run_command(("relink", *subsystem.flags)))


class RenameSubsystem(CommandSubsystem):
    name = "rename"
    help = (
        "Give a variant another name, with its entry in the ledger, its recorded runs, and the "
        "places that name it: ./pants rename VARIANT."
    )

    to = StrOption(default="", fromfile=False, help="New name: a lower-case identifier.")


class Rename(Goal):
    subsystem_cls = RenameSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def rename(console: Console, subsystem: RenameSubsystem, specs: Specs) -> Rename:
    variant = await Get(OneVariant, OneVariantRequest(specs, "rename"))
    if variant.fault:
        console.print_stderr(variant.fault)
        return Rename(exit_code=1)
    argv = ("rename", variant.path, f"--to={subsystem.to}", *subsystem.flags)
    return Rename(exit_code=await run_command(argv))


def rules() -> Iterable[Rule]:
    return collect_rules()
