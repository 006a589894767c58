"""zizmor: `lint` runs it over GitHub's workflows, where a mistake can give away write access."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.core.goals.lint import LintFilesRequest, LintResult
from pants.core.util_rules.partitions import PartitionerType, Partitions
from pants.engine.fs import PathGlobs, Snapshot
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel
from pants.util.strutil import pluralize

from grug.tool import tool_pex

WORKFLOWS = ".github/workflows/"


class ZizmorSubsystem(Subsystem):
    options_scope = "zizmor"
    name = "zizmor"
    help = "The static analysis of GitHub Actions workflows (https://docs.zizmor.sh)."

    skip = SkipOption("lint")


class ZizmorRequest(LintFilesRequest):
    tool_subsystem = ZizmorSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.CUSTOM


@rule
async def partition_zizmor(
    request: ZizmorRequest.PartitionRequest, subsystem: ZizmorSubsystem
) -> Partitions:
    files = [f for f in request.files if f.startswith(WORKFLOWS) and f.endswith((".yml", ".yaml"))]
    return Partitions() if subsystem.skip or not files else Partitions.single_partition(files)


@rule(desc="Lint with zizmor", level=LogLevel.DEBUG)
async def zizmor_lint(request: ZizmorRequest.Batch[str, Any]) -> LintResult:
    zizmor, snapshot = await MultiGet(
        Get(VenvPex, PexRequest, tool_pex("zizmor", "zizmor")),
        Get(Snapshot, PathGlobs(request.elements)),
    )
    result = await Get(
        FallibleProcessResult,
        VenvPexProcess(
            zizmor,
            argv=("--offline", "--no-progress", "--persona=auditor", *snapshot.files),
            input_digest=snapshot.digest,
            description=f"Run zizmor on {pluralize(len(snapshot.files), 'file')}",
            level=LogLevel.DEBUG,
        ),
    )
    return LintResult.create(request, result)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *ZizmorRequest.rules())
