"""`package` of the site: the documents, the archive's pages and each experiment's diff report.

Pages are written before MkDocs runs and diff reports are put in afterwards, so that MkDocs needs no
plugin of ours and its search index holds no code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.base.build_environment import get_buildroot
from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.engine.fs import (
    EMPTY_DIGEST,
    AddPrefix,
    CreateDigest,
    Digest,
    Directory,
    FileContent,
    MergeDigests,
    PathGlobs,
    RemovePrefix,
    Snapshot,
)
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    Dependencies,
    HydratedSources,
    HydrateSourcesRequest,
    MultipleSourcesField,
    StringField,
    Target,
)
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from grug.diff import DiffPlan, DiffReport, DiffRequest, Tree, TreeRequest
from grug.refusals import Refused
from grug.tool import STATISTICS, OwnTool, ToolResult, tool_pex
from grug.variants import AllVariants, Ledger, VariantList, VariantListRequest
from grug.workspace import GrugSubsystem

logger = logging.getLogger(__name__)

SITE_RESOLVE = "docs"


class SiteError(Refused):
    """The site cannot be built; the message is the tool's own."""


class SiteSourcesField(MultipleSourcesField):
    default = ("**/*",)
    uses_source_roots = False
    help = (
        "The docs and assets. The ledger and the run summaries are always those of the workspace."
    )


class SiteConfigField(StringField):
    alias = "config"
    default = "mkdocs.yml"
    help = "MkDocs' configuration, from the build root."


class SiteUrlField(StringField):
    alias = "url"
    default = ""
    help = (
        "Where the site is published, as https://example.org/grug/: for its sitemap, the canonical "
        "addresses of its pages, and its page for addresses that lead nowhere. Without it the site "
        "works anywhere, and has none of these."
    )


class SiteDependenciesField(Dependencies):
    pass


class GrugSite(Target):
    alias = "grug_site"
    help = (
        "The docs as a site that works offline, with the archive of all experiments and their "
        "diff reports. `./pants package` writes it."
    )
    core_fields = (
        *COMMON_TARGET_FIELDS,
        OutputPathField,
        SiteConfigField,
        SiteDependenciesField,
        SiteSourcesField,
        SiteUrlField,
    )


@dataclass(frozen=True)
class SiteFieldSet(PackageFieldSet):
    required_fields = (SiteSourcesField, SiteConfigField)

    sources: SiteSourcesField
    config: SiteConfigField
    url: SiteUrlField
    output_path: OutputPathField


@dataclass(frozen=True)
class FragmentsRequest:
    pass


@dataclass(frozen=True)
class FragmentNames:
    """The experiments, living or deleted, that have a diff; known before any is made."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class DiffFragments:
    """NAME.html for each of them."""

    digest: Digest


def _request(name: str) -> DiffRequest:
    return DiffRequest(name, fragment=True, together=True)


@rule
async def name_fragments(_: FragmentsRequest, ledger: Ledger) -> FragmentNames:
    plans = await MultiGet(
        Get(DiffPlan, DiffRequest, _request(name)) for name in ledger.with_origin
    )
    for plan in plans:
        if plan.fault:  # its page says that there is none
            logger.warning("The site has no diff of %s: %s", plan.name, plan.fault)
    return FragmentNames(tuple(plan.name for plan in plans if not plan.fault))


@rule
async def render_fragments(request: FragmentsRequest) -> DiffFragments:
    found = await Get(FragmentNames, FragmentsRequest, request)
    reports = await MultiGet(Get(DiffReport, DiffRequest, _request(name)) for name in found.names)
    merged = await Get(Digest, MergeDigests(report.digest for report in reports))
    return DiffFragments(await Get(Digest, AddPrefix(merged, "diffs")))


@dataclass(frozen=True)
class LeaderboardRequest:
    pass


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard's pages below tree/docs/; none if no speedrun is recorded."""

    digest: Digest


@rule
async def render_leaderboard(_: LeaderboardRequest, grug: GrugSubsystem) -> Leaderboard:
    entries = await Get(Snapshot, PathGlobs([f"{grug.speedruns}/**", *grug.ledger_files]))
    if not any(path.endswith("/record.json") for path in entries.files):
        return Leaderboard(EMPTY_DIGEST)
    pages = await Get(
        ToolResult,
        OwnTool(
            "speedrun.page",
            ("--root=.", "--out=tree/docs"),
            description="Write the leaderboard",
            input_digest=entries.digest,
            requirements=STATISTICS,
            output_directories=("tree",),
        ),
    )
    return Leaderboard(pages.output_digest)


async def _run_mkdocs(config: str, url: str, tools: str, sources: Digest) -> Digest:
    """dist/site/ as MkDocs builds it. Raises SiteError if it fails."""
    # The hooks that the configuration names, and what they import.
    names = ("reserved", "sanitise", "tabs")
    hook = [f"{tools}/site/{name}.py" for name in names]
    mkdocs, code = await MultiGet(
        Get(
            VenvPex, PexRequest, tool_pex("mkdocs-material", "mkdocs", "nh3", resolve=SITE_RESOLVE)
        ),
        Get(Digest, PathGlobs(hook)),
    )
    built = await Get(
        FallibleProcessResult,
        VenvPexProcess(
            mkdocs,
            argv=("build", "--strict", "--quiet", f"--config-file={config}"),
            input_digest=await Get(Digest, MergeDigests((sources, code))),
            output_directories=("dist/site",),
            # The date in the sitemap, fixed so that the bytes are the same every day.
            extra_env={
                "SOURCE_DATE_EPOCH": "0",
                "PEX_EXTRA_SYS_PATH": ".",
                "GRUG_SITE_URL": url,
            },
            description="Run MkDocs",
        ),
    )
    if built.exit_code:
        raise SiteError(f"MkDocs: {(built.stderr or built.stdout).decode().strip()}")
    return built.output_digest


async def _put_diffs_in(site: Digest, fragments: DiffFragments, url: str) -> Digest:
    """dist/site/ with the diff reports. Raises Refused for a broken link."""
    place = (f"--url={url}",) if url else ()
    spliced = await Get(
        ToolResult,
        OwnTool(
            "site.splice",
            ("dist/site", "diffs", "--check-links", *place),
            description="Put the diff reports in, and check the site's links",
            input_digest=await Get(Digest, MergeDigests((site, fragments.digest))),
            output_directories=("dist/site",),
        ),
    )
    return spliced.output_digest


@dataclass(frozen=True)
class ForkDistanceRequest:
    path: str


@dataclass(frozen=True)
class ForkDistance:
    """Lines that a variant added and deleted since it was copied; empty if that is nowhere."""

    json: str


@rule(desc="Count what changed since the fork", level=LogLevel.DEBUG)
async def count_since_fork(request: ForkDistanceRequest, ledger: Ledger) -> ForkDistance:
    source = ledger.forked[request.path]
    forked, own = await MultiGet(
        Get(Tree, TreeRequest(source)), Get(Tree, TreeRequest(request.path))
    )
    directory = source.rpartition(":")[2]
    if forked.fault or own.fault or directory == request.path:
        return ForkDistance("")
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "variants",
            ("facts", request.path, directory),
            description=f"Count what {request.path} changed since it was copied",
            input_digest=await Get(Digest, MergeDigests((forked.digest, own.digest))),
        ),
    )
    return ForkDistance(result.stdout.decode() if result.exit_code == 0 else "")


@dataclass(frozen=True)
class DatesRequest:
    pass


@dataclass(frozen=True)
class Dates:
    """The day on which each experiment came, as JSON."""

    json: str


@rule
async def ask_for_dates(_: DatesRequest) -> Dates:
    """Asks git in each session: a commit that a fetch brings is no input that Pants watches."""
    result = await Get(
        FallibleProcessResult,
        OwnTool(
            "site.dates",
            (f"--root={get_buildroot()}",),
            description="Ask git when experiments came",
            asks_git=True,
            fresh=True,
        ),
    )
    return Dates(result.stdout.decode() if result.exit_code == 0 else "{}")


@dataclass(frozen=True)
class ArchivePagesRequest:
    """The documents, without the ledger and the run summaries."""

    sources: Digest


@dataclass(frozen=True)
class ArchivePages:
    """MkDocs' docs/ below tree/, with a place for each diff."""

    digest: Digest


@rule(desc="Write the archive's pages", level=LogLevel.DEBUG)
async def write_pages(
    request: ArchivePagesRequest, grug: GrugSubsystem, variants: AllVariants, ledger: Ledger
) -> ArchivePages:
    paths = tuple(target.address.spec_path for target in variants)
    copied = [path for path in paths if path in ledger.forked]
    distances = await MultiGet(Get(ForkDistance, ForkDistanceRequest(path)) for path in copied)
    forks = {path: json.loads(d.json) for path, d in zip(copied, distances) if d.json}
    archive = (*grug.ledger_files, f"{grug.runs}/**/*.json")
    variant_list, dates, records, diffs = await MultiGet(
        Get(VariantList, VariantListRequest(paths, None, "json")),
        Get(Dates, DatesRequest()),
        Get(Digest, PathGlobs(archive)),
        Get(FragmentNames, FragmentsRequest()),
    )
    written = {
        "facts.json": variant_list.text,
        "dates.json": dates.json,
        "forks.json": json.dumps(forks, sort_keys=True),
        # The names are all that pages have of the diffs, which are made in the meantime.
        **{f"diffs/{name}.html": "" for name in diffs.names},
    }
    contents = [FileContent(name, text.encode()) for name, text in written.items()]
    facts = await Get(Digest, CreateDigest([*contents, Directory("diffs")]))
    inputs = (request.sources, records, facts)
    pages = await Get(
        ToolResult,
        OwnTool(
            "site.pages",
            (
                "--root=.",
                "--out=tree/docs",
                "--facts=facts.json",
                "--diffs=diffs",
                "--dates=dates.json",
                "--forks=forks.json",
            ),
            description="Write the archive's pages",
            input_digest=await Get(Digest, MergeDigests(inputs)),
            requirements=STATISTICS,
            output_directories=("tree",),
        ),
    )
    return ArchivePages(pages.output_digest)


@dataclass(frozen=True)
class PlainSiteRequest:
    sources: Digest
    config: str
    url: str


@dataclass(frozen=True)
class PlainSite:
    """dist/site/ as MkDocs builds it, without the diffs."""

    digest: Digest


@rule(desc="Build the site without diffs", level=LogLevel.DEBUG)
async def build_plain_site(request: PlainSiteRequest, grug: GrugSubsystem) -> PlainSite:
    pages, leaderboard, config = await MultiGet(
        Get(ArchivePages, ArchivePagesRequest(request.sources)),
        Get(Leaderboard, LeaderboardRequest()),
        Get(Digest, PathGlobs([request.config])),
    )
    generated = await Get(Digest, MergeDigests((pages.digest, leaderboard.digest)))
    docs = await Get(Digest, RemovePrefix(generated, "tree"))
    sources = await Get(Digest, MergeDigests((docs, config)))
    return PlainSite(await _run_mkdocs(request.config, request.url, grug.tools, sources))


@rule(desc="Build the site", level=LogLevel.DEBUG)
async def package_site(field_set: SiteFieldSet, ledger: Ledger) -> BuiltPackage:
    if ledger.faults:
        raise SiteError(ledger.faults)
    sources = await Get(HydratedSources, HydrateSourcesRequest(field_set.sources))
    config, url = field_set.config.value or "", field_set.url.value or ""
    # Beside each other: the diffs of an archive take longer than all else.
    built, fragments = await MultiGet(
        Get(PlainSite, PlainSiteRequest(sources.snapshot.digest, config, url)),
        Get(DiffFragments, FragmentsRequest()),
    )
    finished = await _put_diffs_in(built.digest, fragments, url)
    site = await Get(Digest, RemovePrefix(finished, "dist/site"))
    output = field_set.output_path.value_or_default(file_ending=None)
    return BuiltPackage(await Get(Digest, AddPrefix(site, output)), (BuiltPackageArtifact(output),))


def target_types() -> Iterable[type[Target]]:
    return (GrugSite,)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), UnionRule(PackageFieldSet, SiteFieldSet))
