"""`diff`: what a variant changes, as a page, as JSON or as Markdown."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pants.base.build_environment import get_buildroot
from pants.base.specs import Specs
from pants.core.util_rules.distdir import DistDir
from pants.core.util_rules.system_binaries import GitBinary
from pants.engine.console import Console
from pants.engine.fs import (
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
    Process,
    ProcessCacheScope,
    ProcessResult,
)
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, goal_rule, rule
from pants.option.option_types import EnumOption, StrOption
from pants.util.logging import LogLevel

from grug.tool import OwnTool
from grug.variants import (
    AllVariants,
    Ledger,
    SelectedVariants,
    SelectedVariantsRequest,
)
from grug.workspace import GrugSubsystem

# Distributions that tools/diff/ colours code with.
REQUIREMENTS = ("pygments",)
# Where it keeps the colours of files it has seen, by content.
CACHE = "highlight"
ENDINGS = {"html": "html", "json": "json", "markdown": "md"}


class DiffError(Exception):
    """There is nothing to compare; one line with the remedy."""


@dataclass(frozen=True)
class DiffRequest:
    """A report of one variant: a name or directory, living or deleted."""

    variant: str
    against: str = ""
    form: str = "html"
    fragment: bool = False


@dataclass(frozen=True)
class DiffReport:
    name: str
    digest: Digest  # one file, NAME.ENDING
    path: str


@dataclass(frozen=True)
class TreeRequest:
    """A directory of the working tree, or COMMIT:DIRECTORY."""

    source: str


@dataclass(frozen=True)
class Tree:
    digest: Digest


@rule
async def read_tree(request: TreeRequest, git: GitBinary) -> Tree:
    commit, colon, path = request.source.partition(":")
    if not colon:
        return Tree(await Get(Digest, PathGlobs([f"{request.source}/**", "!**/__pycache__/**"])))
    # A commit's full name means the same for ever; HEAD and a branch do not.
    lasting = len(commit) == 40
    result = await Get(
        FallibleProcessResult,
        Process(
            (
                "/bin/sh",
                "-c",
                'set -e; "$1" -C "$2" archive --format=tar --output="$PWD/tree.tar" "$3" -- "$4"; '
                "tar -xf tree.tar; rm tree.tar",
                "sh",
                git.path,
                get_buildroot(),
                commit,
                path,
            ),
            env={"PATH": "/usr/bin:/bin"},
            output_directories=(path,),
            description=f"Read {request.source} from git",
            cache_scope=(
                ProcessCacheScope.SUCCESSFUL if lasting else ProcessCacheScope.PER_SESSION
            ),
            level=LogLevel.DEBUG,
        ),
    )
    if result.exit_code:
        said = result.stderr.decode().strip().splitlines() or ["git failed"]
        raise DiffError(f"{request.source}: {said[0]}")
    return Tree(result.output_digest)


@dataclass(frozen=True)
class SizesRequest:
    """Parameters and FLOPs of a variant's smallest preset, as its own `--plan` tells them."""

    tree: Tree
    path: str


@dataclass(frozen=True)
class Sizes:
    json: str


@rule(desc="Count a variant's parameters", level=LogLevel.DEBUG)
async def count_parameters(request: SizesRequest) -> Sizes:
    entry = PathGlobs([f"{request.path}/launch.py"])
    launcher = await Get(Snapshot, DigestSubset(request.tree.digest, entry))
    if not launcher.files:  # a speedrun: it has no plan to ask for
        return Sizes(json.dumps({"error": f"{request.path} has no launch.py"}))
    result = await Get(
        ProcessResult,
        OwnTool(
            "diff.sizes",
            (request.path,),
            description=f"Count the parameters of {request.path}",
            input_digest=request.tree.digest,
            whole_resolve="cpu",
        ),
    )
    return Sizes(result.stdout.decode())


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
    if not request.others:
        raise DiffError(f"{request.path}: the only variant, so there is nothing to hold it against")
    trees = await MultiGet(Get(Tree, TreeRequest(path)) for path in request.others)
    digests = [request.tree.digest, *(tree.digest for tree in trees)]
    result = await Get(
        ProcessResult,
        OwnTool(
            "diff.closest",
            (request.path, *request.others),
            description=f"Find the variant closest to {request.path}",
            input_digest=await Get(Digest, MergeDigests(digests)),
            requirements=REQUIREMENTS,
        ),
    )
    return Closest(json.loads(result.stdout)["closest"])


async def _find_sides(
    request: DiffRequest, ledger: Ledger, directories: tuple[str, ...], grug: GrugSubsystem
) -> dict[str, Any]:
    """What tools/variants/ says that the variant is held against: `name`, `new` and `old`."""
    argv = ("sides", grug.ledger, request.variant, f"--against={request.against}")
    asked = await Get(
        FallibleProcessResult,
        OwnTool(
            "variants",
            (*argv, "--directories", *directories),
            description=f"Find what {request.variant} is held against",
            input_digest=ledger.digest,
        ),
    )
    if asked.exit_code:
        raise DiffError(asked.stderr.decode().strip())
    sides: dict[str, Any] = json.loads(asked.stdout)
    return sides


@rule(desc="Compare a variant with its origin", level=LogLevel.DEBUG)
async def report_diff(
    request: DiffRequest, ledger: Ledger, every: AllVariants, grug: GrugSubsystem
) -> DiffReport:
    if ledger.faults:
        raise DiffError(ledger.faults)
    directories = tuple(target.address.spec_path for target in every)
    sides = await _find_sides(request, ledger, directories, grug)
    new, old = sides["new"], sides["old"]
    new_path = new["source"].rpartition(":")[2]
    new_tree = await Get(Tree, TreeRequest(new["source"]))
    recorded = old is not None
    if old is None:
        others = tuple(path for path in directories if path != new_path)
        closest = await Get(Closest, ClosestRequest(new_path, new_tree, others))
        old = {"source": closest.path, "label": posixpath.basename(closest.path), "commit": ""}
    old_path = old["source"].rpartition(":")[2]
    old_tree = await Get(Tree, TreeRequest(old["source"]))
    sizes = await MultiGet(
        Get(Sizes, SizesRequest(old_tree, old_path)), Get(Sizes, SizesRequest(new_tree, new_path))
    )
    both = json.dumps({"old": json.loads(sizes[0].json), "new": json.loads(sizes[1].json)})
    digests = await MultiGet(
        Get(Digest, AddPrefix(old_tree.digest, "old")),
        Get(Digest, AddPrefix(new_tree.digest, "new")),
        Get(Digest, PathGlobs([grug.buckets])),
        Get(Digest, CreateDigest([FileContent("sizes.json", both.encode())])),
    )
    output = f"{sides['name']}.{ENDINGS[request.form]}"
    flags = [f"--out={output}", f"--buckets={grug.buckets}", *_flags(request, old, new)]
    result = await Get(
        ProcessResult,
        OwnTool(
            "diff",
            (f"old/{old_path}", f"new/{new_path}", *flags, *(() if recorded else ("--found",))),
            description=f"Compare {new['label']} with {old['label']}",
            input_digest=await Get(Digest, MergeDigests(digests)),
            requirements=REQUIREMENTS,
            cache=CACHE,
            output_files=(output,),
        ),
    )
    return DiffReport(sides["name"], result.output_digest, output)


def _flags(request: DiffRequest, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Flags of tools/diff/ that say what the two sides are called and what is written."""
    flags = [
        f"--format={request.form}",
        f"--old-label={old['label']}",
        f"--new-label={new['label']}",
        "--sizes=sizes.json",
        f"--cache={CACHE}",
    ]
    flags += [f"--old-commit={old['commit']}"] if old["commit"] else []
    flags += [f"--new-commit={new['commit']}"] if new["commit"] else []
    return [*flags, "--fragment"] if request.fragment else flags


class DiffFormat(Enum):
    html = "html"
    json = "json"
    markdown = "markdown"


class DiffSubsystem(GoalSubsystem):
    name = "diff"
    help = (
        "Show what a variant changes against the origin that the ledger records: those named, or "
        "with --changed-since=REF those that were added or edited. Writes dist/diff/NAME/."
    )

    format = EnumOption(
        default=DiffFormat.html,
        help="A page (html), or to the terminal: json for machines, markdown for a comment.",
    )
    against = StrOption(
        default=None, help="Hold it against this variant, or COMMIT:DIRECTORY, instead."
    )
    variant = StrOption(
        default=None, help="The name of a variant in the ledger, which may have been deleted."
    )


class Diff(Goal):
    subsystem_cls = DiffSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


@goal_rule
async def diff(
    console: Console,
    subsystem: DiffSubsystem,
    specs: Specs,
    every: AllVariants,
    grug: GrugSubsystem,
    workspace: Workspace,
    dist: DistDir,
) -> Diff:
    chosen = [subsystem.variant] if subsystem.variant else []
    if specs.includes.from_change_detection:
        files = [spec.file for spec in specs.includes.file_literals]
        touched = {grug.variant_of(file) for file in files}
        paths = (target.address.spec_path for target in every)
        chosen += [path for path in paths if path in touched]
    elif specs:
        chosen += (await Get(SelectedVariants, SelectedVariantsRequest(specs))).paths
    if not chosen:
        changed = specs.includes.from_change_detection
        console.print_stderr(
            "No variant changed." if changed else "Name a variant: ./pants diff DIRECTORY"
        )
        return Diff(exit_code=0 if changed else 1)
    form = subsystem.format.value
    requests = [DiffRequest(variant, subsystem.against or "", form) for variant in chosen]
    reports = await MultiGet(Get(DiffReport, DiffRequest, request) for request in requests)
    contents = await MultiGet(Get(DigestContents, Digest, report.digest) for report in reports)
    for report, (file,) in zip(reports, contents):
        if form != "html":
            console.print_stdout(file.content.decode().rstrip("\n"))
            continue
        directory = f"{dist.relpath}/diff/{report.name}"
        page = await Get(Digest, CreateDigest([FileContent("index.html", file.content)]))
        workspace.write_digest(page, path_prefix=directory)
        console.print_stdout(f"{directory}/index.html")
    return Diff(exit_code=0)


def rules() -> Iterable[Rule]:
    return collect_rules()
