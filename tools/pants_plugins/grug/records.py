"""`lint` of the records of experiments: the ledger, the run summaries, the speedruns.

The tools read the workspace itself rather than a sandbox: whether a commit exists, or a directory
is gone, shows in no file's content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pants.base.build_environment import get_buildroot
from pants.core.goals.lint import LintFilesRequest, LintResult
from pants.core.util_rules.partitions import PartitionerType, Partitions
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from grug.tool import STATISTICS, OwnTool
from grug.workspace import GrugSubsystem

# Tools whose command `check` is run: `runs` checks the ledger and the run summaries.
TOOLS = ("runs", "speedrun")


class RecordsSubsystem(Subsystem):
    options_scope = "grug-records"
    name = "grug-records"
    help = (
        "Checks that the ledger, the run summaries and the speedruns' records are true and whole."
    )

    skip = SkipOption("lint")


class RecordsRequest(LintFilesRequest):
    tool_subsystem = RecordsSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.CUSTOM


@rule
async def partition_records(
    request: RecordsRequest.PartitionRequest, subsystem: RecordsSubsystem, grug: GrugSubsystem
) -> Partitions:
    """One partition, because variants, the ledger and the summaries can contradict each other."""
    entries = f"{grug.ledger_entries}/"
    places = (grug.ledger, entries, f"{grug.runs}/", *(f"{root}/" for root in grug.roots))
    files = [file for file in request.files if file.startswith(places)]
    return Partitions() if subsystem.skip or not files else Partitions.single_partition(files)


@rule(desc="Lint the records", level=LogLevel.DEBUG)
async def lint_records(request: RecordsRequest.Batch[str, Any]) -> LintResult:
    argv = ("check", f"--root={get_buildroot()}")
    results = await MultiGet(
        Get(
            FallibleProcessResult,
            OwnTool(
                tool,
                argv,
                description=f"Check with tools/{tool}",
                requirements=STATISTICS if tool == "runs" else (),
                asks_git=True,
                fresh=True,
            ),
        )
        for tool in TOOLS
    )
    return LintResult(
        exit_code=max(result.exit_code for result in results),
        stdout="".join(result.stdout.decode() for result in results),
        stderr="".join(result.stderr.decode() for result in results),
        linter_name=request.tool_name,
        partition_description=None,
    )


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *RecordsRequest.rules())
