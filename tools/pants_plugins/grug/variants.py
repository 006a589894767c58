"""`variants`: lists the experiments, or with --changed-since those a change touches, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.base.specs import Specs
from pants.engine.addresses import Addresses
from pants.engine.collection import Collection
from pants.engine.console import Console
from pants.engine.fs import CreateDigest, Digest, FileContent, MergeDigests, PathGlobs
from pants.engine.goal import Goal, GoalSubsystem, Outputting
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, goal_rule, rule
from pants.engine.target import (
    AllTargets,
    AllUnexpandedTargets,
    HydratedSources,
    HydrateSourcesRequest,
    Target,
)
from pants.option.option_types import EnumOption
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from grug.target_types import (
    AcceleratorsField,
    ContractVariantField,
    GrugVariant,
    VariantDataFiles,
    VariantDataRequest,
    VariantSourcesField,
    escape,
)
from grug.tool import OwnTool, ToolResult
from grug.workspace import GrugSubsystem


class AllVariants(Collection[Target]):
    """Every `grug_variant` of the workspace, by address."""


@rule
async def all_variants(targets: AllUnexpandedTargets) -> AllVariants:
    variants = (target for target in targets if isinstance(target, GrugVariant))
    return AllVariants(sorted(variants, key=lambda target: target.address))


@dataclass(frozen=True)
class SelectedVariantsRequest:
    specs: Specs


@dataclass(frozen=True)
class SelectedVariants:
    """Directories of the variants that a command line names; all if it names nothing.

    All with --changed-since, too: tools/variants/ decides which of them changed.
    """

    paths: tuple[str, ...]


@rule
async def select_variants(
    request: SelectedVariantsRequest, targets: AllVariants, grug: GrugSubsystem
) -> SelectedVariants:
    specs = request.specs
    paths = tuple(target.address.spec_path for target in targets)
    if not specs or specs.includes.from_change_detection:
        return SelectedVariants(paths)
    addresses = await Get(Addresses, Specs, specs)
    variants = {grug.variant_of(f"{address.spec_path}/") for address in addresses}
    return SelectedVariants(tuple(path for path in paths if path in variants))


def unknown_directories(specs: Specs, variants: Iterable[str]) -> tuple[str, ...]:
    """The directories that a command line names and that neither are, nor hold, nor lie in, one
    of the variants: Pants would fail to expand one that is not there."""
    known = tuple(variants)
    includes = specs.includes
    named = [
        *(spec.directory for spec in includes.dir_literals),
        *(spec.directory for spec in includes.dir_globs),
        *(spec.directory for spec in includes.recursive_globs),
        *(spec.path_component for spec in includes.address_literals),
    ]

    def is_known(name: str) -> bool:
        return not name or any(
            path == name or path.startswith(f"{name}/") or name.startswith(f"{path}/")
            for path in known
        )

    return tuple(name for name in named if not is_known(name))


@dataclass(frozen=True)
class VariantFactsRequest:
    variant: Target
    origin: Target | None


@dataclass(frozen=True)
class VariantFacts:
    json: str


@rule(desc="Count a variant's lines", level=LogLevel.DEBUG)
async def count_variant(request: VariantFactsRequest) -> VariantFacts:
    """One process per variant, so an edit recounts only that one."""
    compared = [t for t in (request.variant, request.origin) if t is not None]
    sources = await MultiGet(
        Get(HydratedSources, HydrateSourcesRequest(t[VariantSourcesField])) for t in compared
    )
    paths = tuple(t.address.spec_path for t in compared)
    data = await MultiGet(Get(VariantDataFiles, VariantDataRequest(path)) for path in paths)
    names = [f"{path}/{escape(f)}" for path, found in zip(paths, data) for f in found.files]
    data_digest = await Get(Digest, PathGlobs(names))
    digests = [data_digest, *(hydrated.snapshot.digest for hydrated in sources)]
    digest = await Get(Digest, MergeDigests(digests))
    result = await Get(
        ToolResult,
        OwnTool(
            "variants",
            ("facts", *paths),
            description=f"Count the lines of {paths[0]}",
            input_digest=digest,
        ),
    )
    return VariantFacts(result.stdout.decode())


class VariantsFormat(Enum):
    table = "table"
    json = "json"
    names = "names"


class VariantsSubsystem(Outputting, GoalSubsystem):
    name = "variants"
    help = (
        "List the experiments: all, those that are named or, with --changed-since=REF, those whose "
        "sources, BUILD file, lock or contract tests changed, with the reason for each."
    )

    format = EnumOption(default=VariantsFormat.table, help="Form of the list.")


class Variants(Goal):
    subsystem_cls = VariantsSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@dataclass(frozen=True)
class Ledger:
    """The ledger as a file, and the origins in it; `faults` says why it cannot be read."""

    digest: Digest
    origins: FrozenDict[str, str]
    with_origin: tuple[str, ...]  # names
    forked: FrozenDict[str, str]  # by path: COMMIT:DIRECTORY of what it was copied from
    faults: str


@rule
async def read_ledger(grug: GrugSubsystem) -> Ledger:
    digest = await Get(Digest, PathGlobs(grug.ledger_files))
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "variants",
            ("origins", grug.ledger),
            description="Read the ledger",
            input_digest=digest,
        ),
    )
    if result.exit_code:
        return Ledger(digest, FrozenDict(), (), FrozenDict(), result.stderr.decode().rstrip())
    answer = json.loads(result.stdout)
    origins = FrozenDict({path: origin for path, origin in answer["paths"].items() if origin})
    return Ledger(digest, origins, tuple(answer["with_origin"]), FrozenDict(answer["forked"]), "")


@dataclass(frozen=True)
class BuildFacts:
    """The locks of a variant's targets, and whether it has a contract."""

    locks: tuple[str, ...]
    contract: bool


class AllBuildFacts(FrozenDict[str, BuildFacts]):
    """Build facts by the variant's directory."""


@rule
async def find_build_facts(
    targets: AllTargets, grug: GrugSubsystem, python_setup: PythonSetup
) -> AllBuildFacts:
    members: dict[str, list[Target]] = {}
    for target in targets:
        variant = grug.variant_of(f"{target.address.spec_path}/")
        if variant and target.has_field(PythonResolveField):
            members.setdefault(variant, []).append(target)

    def facts(own_targets: list[Target]) -> BuildFacts:
        names = {
            target[PythonResolveField].normalized_value(python_setup) for target in own_targets
        }
        locks = {python_setup.resolves[name] for name in names if name in python_setup.resolves}
        contract = any(target.has_field(ContractVariantField) for target in own_targets)
        return BuildFacts(tuple(sorted(locks)), contract)

    return AllBuildFacts({variant: facts(own_targets) for variant, own_targets in members.items()})


@dataclass(frozen=True)
class VariantListRequest:
    """`changed` holds the changed files, or None to list all variants."""

    paths: tuple[str, ...]
    changed: tuple[str, ...] | None
    form: str


@dataclass(frozen=True)
class VariantList:
    text: str


@rule(desc="List the variants", level=LogLevel.DEBUG)
async def compose_list(
    request: VariantListRequest,
    targets: AllVariants,
    build_facts: AllBuildFacts,
    ledger: Ledger,
    grug: GrugSubsystem,
) -> VariantList:
    by_path = {target.address.spec_path: target for target in targets}
    facts = await MultiGet(
        Get(
            VariantFacts,
            VariantFactsRequest(by_path[path], by_path.get(ledger.origins.get(path, ""))),
        )
        for path in request.paths
    )
    listing_request = {
        "suite": grug.contract,
        "changed": request.changed,
        "variants": [
            {
                "path": path,
                "accelerators": by_path[path][AcceleratorsField].value or (),
                "locks": build_facts[path].locks if path in build_facts else (),
                "contract": path in build_facts and build_facts[path].contract,
                "facts": json.loads(fact.json),
            }
            for path, fact in zip(request.paths, facts)
        ],
    }
    content = FileContent("request.json", json.dumps(listing_request, sort_keys=True).encode())
    request_digest = await Get(Digest, CreateDigest([content]))
    result = await Get(
        ToolResult,
        OwnTool(
            "variants",
            ("list", content.path, grug.ledger, f"--format={request.form}"),
            description="List the variants",
            input_digest=await Get(Digest, MergeDigests((request_digest, ledger.digest))),
        ),
    )
    return VariantList(result.stdout.decode())


@goal_rule
async def list_variants(
    console: Console, subsystem: VariantsSubsystem, specs: Specs, ledger: Ledger
) -> Variants:
    if ledger.faults:
        console.print_stderr(ledger.faults)
        return Variants(exit_code=1)
    selected = await Get(SelectedVariants, SelectedVariantsRequest(specs))
    changed = None
    if specs.includes.from_change_detection:
        changed = tuple(sorted(spec.file for spec in specs.includes.file_literals))
    variant_list = await Get(
        VariantList, VariantListRequest(selected.paths, changed, subsystem.format.value)
    )
    with subsystem.output(console) as write:
        write(variant_list.text)
    return Variants(exit_code=0)


def rules() -> Iterable[Rule]:
    return collect_rules()
