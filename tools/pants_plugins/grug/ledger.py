"""`lint` of what people write about experiments: the ledger and the run summaries.

The tools that hold these are told where the workspace is and read it there: whether a commit
exists, or a directory has gone, shows in no file's content.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable
from typing import Any

from pants.base.build_environment import get_buildroot
from pants.core.goals.lint import LintFilesRequest, LintResult
from pants.core.util_rules.partitions import PartitionerType, Partitions
from pants.core.util_rules.system_binaries import GitBinary
from pants.engine.process import FallibleProcessResult, Process, ProcessCacheScope
from pants.engine.rules import Get, Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from grug.tool import OwnTool
from grug.workspace import GrugSubsystem


class LedgerSubsystem(Subsystem):
    options_scope = "grug-ledger"
    name = "grug-ledger"
    help = "Whether the ledger is true: its fields, commits, directories and run summaries."

    skip = SkipOption("lint")


class LedgerRequest(LintFilesRequest):
    tool_subsystem = LedgerSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.CUSTOM


@rule
async def partition_ledger(
    request: LedgerRequest.PartitionRequest, subsystem: LedgerSubsystem, grug: GrugSubsystem
) -> Partitions:
    """One partition: a variant, the ledger and the summaries can each belie the others."""
    places = (grug.ledger, f"{grug.runs}/", *(f"{root}/" for root in grug.roots))
    files = [file for file in request.files if file.startswith(places)]
    return Partitions() if subsystem.skip or not files else Partitions.single_partition(files)


@rule(desc="Lint the ledger", level=LogLevel.DEBUG)
async def lint_ledger(request: LedgerRequest.Batch[str, Any], git: GitBinary) -> LintResult:
    process = await Get(
        Process,
        OwnTool("archive", ("check", f"--root={get_buildroot()}"), description="Check the ledger"),
    )
    anew = dataclasses.replace(
        process,
        env=FrozenDict({**process.env, "PATH": posixpath.dirname(git.path)}),
        cache_scope=ProcessCacheScope.PER_SESSION,
    )
    return LintResult.create(request, await Get(FallibleProcessResult, Process, anew))


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *LedgerRequest.rules())
