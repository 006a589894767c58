"""`diff`: what a variant changes, as a page, as JSON or as Markdown."""

from __future__ import annotations

import json
import posixpath
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pants.base.build_environment import get_buildroot
from pants.base.specs import Specs
from pants.core.util_rules.distdir import DistDir
from pants.engine.console import Console
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    DigestContents,
    DigestSubset,
    FileContent,
    MergeDigests,
    PathGlobs,
    Snapshot,
    Workspace,
)
from pants.engine.goal import Goal, GoalSubsystem
from pants.engine.process import (
    FallibleProcessResult,
)
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, goal_rule, rule
from pants.option.option_types import EnumOption, StrOption
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from grug.tool import OwnTool, ToolResult
from grug.variants import (
    AllVariants,
    Ledger,
    SelectedVariants,
    SelectedVariantsRequest,
    unknown_directories,
)
from grug.workspace import GrugSubsystem

# Third-party packages that tools/diff/ imports.
REQUIREMENTS = ("pygments",)
# Cache of syntax colours, by the content of files.
CACHE = "highlight"
# Variants that are planned in one process: an import costs about as much as ten plans.
BATCH = 16
ENDINGS = {"html": "html", "json": "json", "markdown": "md"}


class DiffError(Exception):
    """There is nothing to compare; one line with the remedy."""


@dataclass(frozen=True)
class DiffRequest:
    """A report on one variant, given by name or directory, living or deleted."""

    variant: str
    against: str = ""
    form: str = "html"
    fragment: bool = False
    together: bool = False  # whether all variants are reported on


@dataclass(frozen=True)
class DiffReport:
    name: str
    digest: Digest  # one file, NAME.ENDING
    path: str
    fault: str = ""  # why there is no report; then there is no file


@dataclass(frozen=True)
class TreeRequest:
    """A directory of the working tree, COMMIT:DIRECTORY, or `COMMIT tree TREE:DIRECTORY`."""

    source: str


@dataclass(frozen=True)
class Tree:
    digest: Digest
    fault: str = ""  # why nothing has it


@rule
async def read_tree(request: TreeRequest) -> Tree:
    named, colon, path = request.source.partition(":")
    if not colon:
        return Tree(await Get(Digest, PathGlobs([f"{request.source}/**", "!**/__pycache__/**"])))
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "ledger.trees",
            (request.source, f"--root={get_buildroot()}"),
            description=f"Read {request.source} from git",
            asks_git=True,
            # A full commit digest and a tree never change their meaning; HEAD and a branch do.
            fresh=len(named) != 40 and "tree " not in named,
            output_directories=(path,),
        ),
    )
    if result.exit_code:
        return Tree(EMPTY_DIGEST, result.stderr.decode().strip())
    return Tree(result.output_digest)


@dataclass(frozen=True)
class SizesRequest:
    """Parameters and FLOPs of a variant's smallest preset.

    They come from its own `--plan`; of what the ledger says is in history, from what was kept while
    it was live: code that is gone is not run under the packages of today.
    """

    tree: Tree
    source: str
    together: bool = False  # whether the sizes of all living variants are asked for


@dataclass(frozen=True)
class Sizes:
    json: str


@dataclass(frozen=True)
class BatchSizesRequest:
    paths: tuple[str, ...]


class BatchSizes(FrozenDict[str, str]):
    """Sizes as JSON, by the variant's directory."""


def batch_of(path: str, paths: Iterable[str]) -> tuple[str, ...]:
    """The directories that are planned in one process with `path`.

    A process imports the packages once, and runs again after an edit of any of its variants. Which
    batch a variant is in depends on its name, so that another one that comes or goes changes one.
    """
    names = sorted(paths)
    batches = 1
    while batches * BATCH < len(names):
        batches *= 2
    number = zlib.crc32(path.encode()) % batches
    return tuple(name for name in names if zlib.crc32(name.encode()) % batches == number)


@rule(desc="Count the parameters of several variants", level=LogLevel.DEBUG)
async def count_batch(request: BatchSizesRequest) -> BatchSizes:
    trees = await MultiGet(Get(Tree, TreeRequest(path)) for path in request.paths)
    result = await Get(
        ToolResult,
        OwnTool(
            "diff.sizes",
            ("--together", *request.paths),
            description=f"Count the parameters of {len(request.paths)} variants",
            input_digest=await Get(Digest, MergeDigests(tree.digest for tree in trees)),
            whole_resolve="cpu",
        ),
    )
    answers = json.loads(result.stdout)
    return BatchSizes({path: json.dumps(answer) for path, answer in answers.items()})


@rule(desc="Count a variant's parameters", level=LogLevel.DEBUG)
async def count_parameters(
    request: SizesRequest, variants: AllVariants, grug: GrugSubsystem
) -> Sizes:
    named, _, path = request.source.rpartition(":")
    if "tree " in named:
        tree = named.rpartition("tree ")[2]
        kept = await Get(Digest, PathGlobs([f"{grug.sizes}/{tree}.json"]))
        found = await Get(
            ToolResult,
            OwnTool(
                "ledger.sizes",
                (tree,),
                description=f"Look up the size of {path}",
                input_digest=kept,
            ),
        )
        return Sizes(found.stdout.decode())
    entry = PathGlobs([f"{path}/launch.py"])
    launcher = await Get(Snapshot, DigestSubset(request.tree.digest, entry))
    if not launcher.files:  # a speedrun has no plan
        return Sizes(json.dumps({"error": f"{path} has no launch.py"}))
    living = [target.address.spec_path for target in variants]
    if request.together and request.source in living:
        planned = batch_of(path, living)
        return Sizes((await Get(BatchSizes, BatchSizesRequest(planned)))[path])
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "diff.sizes",
            (path,),
            description=f"Count the parameters of {path}",
            input_digest=request.tree.digest,
            whole_resolve="cpu",
        ),
    )
    # One that fails is a line of the report: it prints {"error": ...} itself, unless it is killed.
    if result.exit_code and not result.stdout:
        lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no answer"]
        return Sizes(json.dumps({"error": f"the plan of {path} failed: {lines[-1][:300]}"}))
    return Sizes(result.stdout.decode())


@dataclass(frozen=True)
class PairSizesRequest:
    """The sizes to keep of a living variant, and of its origin as it was copied."""

    path: str


@dataclass(frozen=True)
class PairSizes:
    json: str


@rule
async def count_pair(request: PairSizesRequest, ledger: Ledger) -> PairSizes:
    sources = {"variant": request.path}
    if request.path in ledger.forked:
        sources["origin"] = ledger.forked[request.path]
    trees = await MultiGet(Get(Tree, TreeRequest(source)) for source in sources.values())
    found = {side: tree for side, tree in zip(sources, trees) if not tree.fault}
    # The origin as it was: once, while the variant is live, and never again.
    places = {side: sources[side].rpartition(":")[2] for side in found}
    sizes = await MultiGet(Get(Sizes, SizesRequest(found[side], places[side])) for side in found)
    answer = {side: json.loads(size.json) for side, size in zip(found, sizes)}
    return PairSizes(json.dumps(answer, sort_keys=True))


@dataclass(frozen=True)
class ClosestRequest:
    path: str
    tree: Tree
    others: tuple[str, ...]


@dataclass(frozen=True)
class Closest:
    path: str


@rule(desc="Find the closest variant", level=LogLevel.DEBUG)
async def find_closest(request: ClosestRequest) -> Closest:
    trees = await MultiGet(Get(Tree, TreeRequest(path)) for path in request.others)
    digests = [request.tree.digest, *(tree.digest for tree in trees)]
    result = await Get(
        ToolResult,
        OwnTool(
            "diff.closest",
            (request.path, *request.others),
            description=f"Find the variant closest to {request.path}",
            input_digest=await Get(Digest, MergeDigests(digests)),
            requirements=REQUIREMENTS,
        ),
    )
    return Closest(json.loads(result.stdout)["closest"])


@dataclass(frozen=True)
class AllSidesRequest:
    directories: tuple[str, ...]


@dataclass(frozen=True)
class AllSides:
    """JSON: by the name of each entry with an origin {"sides"}, or {"fault"} if it has none."""

    json: str


@rule
async def find_all_sides(request: AllSidesRequest, ledger: Ledger, grug: GrugSubsystem) -> AllSides:
    result = await Get(
        ToolResult,
        OwnTool(
            "variants",
            ("all-sides", grug.ledger, "--directories", *request.directories),
            description="Find the origins of all variants",
            input_digest=ledger.digest,
        ),
    )
    return AllSides(result.stdout.decode())


async def _find_sides(
    request: DiffRequest, ledger: Ledger, directories: tuple[str, ...], grug: GrugSubsystem
) -> dict[str, Any]:
    """The two sides to compare, from tools/variants/: `name`, `new` and `old`."""
    if request.together:
        everyone = json.loads((await Get(AllSides, AllSidesRequest(directories))).json)
        answer = everyone[request.variant]
        if "fault" in answer:
            raise DiffError(answer["fault"])
        return answer["sides"]
    argv = ("sides", grug.ledger, request.variant, f"--against={request.against}")
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "variants",
            (*argv, "--directories", *directories),
            description=f"Find the origin of {request.variant}",
            input_digest=ledger.digest,
        ),
    )
    if result.exit_code:
        raise DiffError(result.stderr.decode().strip())
    sides: dict[str, Any] = json.loads(result.stdout)
    return sides


@dataclass(frozen=True)
class DiffPlan:
    """What a report compares; with a `fault` nothing."""

    name: str
    fault: str = ""
    new_source: str = ""
    new_label: str = ""
    new_commit: str = ""
    new_tree: Tree = Tree(EMPTY_DIGEST)
    old_source: str = ""
    old_label: str = ""
    old_commit: str = ""
    old_tree: Tree = Tree(EMPTY_DIGEST)
    is_recorded: bool = True
    bucket: str = ""  # that the ledger declares, if the other side is the origin


@rule(desc="Find what a variant is compared with", level=LogLevel.DEBUG)
async def plan_diff(
    request: DiffRequest, ledger: Ledger, variants: AllVariants, grug: GrugSubsystem
) -> DiffPlan:
    if ledger.faults:
        return DiffPlan(request.variant, ledger.faults)
    directories = tuple(target.address.spec_path for target in variants)
    try:
        sides = await _find_sides(request, ledger, directories, grug)
    except DiffError as error:
        return DiffPlan(request.variant, str(error))
    name, new, old = sides["name"], sides["new"], sides["old"]
    new_tree = await Get(Tree, TreeRequest(new["source"]))
    is_recorded = old is not None
    if new_tree.fault:
        return DiffPlan(name, new_tree.fault)
    if old is None:
        new_path = new["source"].rpartition(":")[2]
        others = tuple(path for path in directories if path != new_path)
        if not others:
            alone = f"{new_path}: the only variant, so there is nothing to hold it against"
            return DiffPlan(name, alone)
        closest = await Get(Closest, ClosestRequest(new_path, new_tree, others))
        old = {"source": closest.path, "label": posixpath.basename(closest.path), "commit": ""}
    old_tree = await Get(Tree, TreeRequest(old["source"]))
    if old_tree.fault:
        return DiffPlan(name, old_tree.fault)
    return DiffPlan(
        name,
        new_tree=new_tree,
        old_tree=old_tree,
        is_recorded=is_recorded,
        bucket=sides["bucket"],
        **{f"new_{key}": value for key, value in new.items()},
        **{f"old_{key}": value for key, value in old.items()},
    )


@rule(desc="Compare a variant with its origin", level=LogLevel.DEBUG)
async def report_diff(request: DiffRequest, grug: GrugSubsystem) -> DiffReport:
    plan = await Get(DiffPlan, DiffRequest, request)
    if plan.fault:
        return DiffReport(plan.name, EMPTY_DIGEST, "", plan.fault)
    sizes = await MultiGet(
        Get(Sizes, SizesRequest(plan.old_tree, plan.old_source, request.together)),
        Get(Sizes, SizesRequest(plan.new_tree, plan.new_source, request.together)),
    )
    sizes_json = json.dumps({"old": json.loads(sizes[0].json), "new": json.loads(sizes[1].json)})
    digests = await MultiGet(
        Get(Digest, AddPrefix(plan.old_tree.digest, "old")),
        Get(Digest, AddPrefix(plan.new_tree.digest, "new")),
        Get(Digest, PathGlobs([grug.buckets])),
        Get(Digest, CreateDigest([FileContent("sizes.json", sizes_json.encode())])),
    )
    output = f"{plan.name}.{ENDINGS[request.form]}"
    old_path, new_path = (s.rpartition(":")[2] for s in (plan.old_source, plan.new_source))
    flags = (f"--out={output}", f"--buckets={grug.buckets}", *_flags(request, plan))
    result = await Get(
        ToolResult,
        OwnTool(
            "diff",
            (f"old/{old_path}", f"new/{new_path}", *flags),
            description=f"Compare {plan.new_label} with {plan.old_label}",
            input_digest=await Get(Digest, MergeDigests(digests)),
            requirements=REQUIREMENTS,
            cache=CACHE,
            output_files=(output,),
        ),
    )
    return DiffReport(plan.name, result.output_digest, output)


def _flags(request: DiffRequest, plan: DiffPlan) -> list[str]:
    """Flags of tools/diff/ for the labels of the two sides and the format."""
    flags = [
        f"--format={request.form}",
        f"--old-label={plan.old_label}",
        f"--new-label={plan.new_label}",
        "--sizes=sizes.json",
        f"--cache={CACHE}",
    ]
    flags += [f"--old-commit={plan.old_commit}"] if plan.old_commit else []
    flags += [f"--new-commit={plan.new_commit}"] if plan.new_commit else []
    flags += [] if plan.is_recorded else ["--found"]
    flags += [f"--declared={plan.bucket}"] if plan.bucket else []
    return [*flags, "--fragment"] if request.fragment else flags


class DiffFormat(Enum):
    html = "html"
    json = "json"
    markdown = "markdown"


class DiffSubsystem(GoalSubsystem):
    name = "diff"
    help = (
        "Show what variants change against their origins, as a page in dist/diff/NAME/. Takes the "
        "variants that are named or, with --changed-since=REF, those that were added or edited."
    )

    format = EnumOption(
        default=DiffFormat.html,
        help="Form of the report: a page (html), or text on the terminal (json, markdown).",
    )
    against = StrOption(
        default=None, help="Variant, or COMMIT:DIRECTORY, to compare with instead of the origin."
    )
    variant = StrOption(
        default=None, help="Name of the variant to show, as in the ledger; it may be deleted."
    )
    variant = StrOption(default=None, help="Name of a variant in the ledger, which may be deleted.")


class Diff(Goal):
    subsystem_cls = DiffSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def diff(
    console: Console,
    subsystem: DiffSubsystem,
    specs: Specs,
    variants: AllVariants,
    grug: GrugSubsystem,
    workspace: Workspace,
    dist: DistDir,
) -> Diff:
    chosen = [subsystem.variant] if subsystem.variant else []
    if specs.includes.from_change_detection:
        files = [spec.file for spec in specs.includes.file_literals]
        touched = {grug.variant_of(file) for file in files}
        paths = (target.address.spec_path for target in variants)
        chosen += [path for path in paths if path in touched]
    elif specs:
        known = tuple(target.address.spec_path for target in variants)
        strangers = unknown_directories(specs, known)
        selected = SelectedVariantsRequest(specs)
        chosen += (
            strangers or (await Get(SelectedVariants, SelectedVariantsRequest, selected)).paths
        )
    if not chosen:
        changed = specs.includes.from_change_detection
        console.print_stderr(
            "No variant changed." if changed else "Name a variant: ./pants diff DIRECTORY"
        )
        return Diff(exit_code=0 if changed else 1)
    output_format = subsystem.format.value
    requests = [DiffRequest(variant, subsystem.against or "", output_format) for variant in chosen]
    reports = await MultiGet(Get(DiffReport, DiffRequest, request) for request in requests)
    faults = [report.fault for report in reports if report.fault]
    reports = tuple(report for report in reports if not report.fault)
    contents = await MultiGet(Get(DigestContents, Digest, report.digest) for report in reports)
    for report, (file,) in zip(reports, contents):
        if output_format != "html":
            console.print_stdout(file.content.decode().rstrip("\n"))
            continue
        directory = f"{dist.relpath}/diff/{report.name}"
        page = await Get(Digest, CreateDigest([FileContent("index.html", file.content)]))
        workspace.write_digest(page, path_prefix=directory)
        console.print_stdout(f"{directory}/index.html")
    for fault in faults:
        console.print_stderr(fault)
    return Diff(exit_code=1 if faults else 0)


def rules() -> Iterable[Rule]:
    return collect_rules()
