"""ruff: `lint` runs its rules, `fmt` sorts imports and formats the code.

The newest ruff that Pants' own backend knows is too old for our Python.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.target_types import PythonSourceField
from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.core.goals.fmt import FmtResult, FmtTargetsRequest
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.fs import Digest, MergeDigests, PathGlobs
from pants.engine.process import FallibleProcessResult, ProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption, StrOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel
from pants.util.strutil import pluralize

from grug.tool import tool_pex


class RuffSubsystem(Subsystem):
    options_scope = "ruff"
    name = "ruff"
    help = "The ruff linter and formatter (https://docs.astral.sh/ruff)."

    skip = SkipOption("lint", "fmt")
    config = StrOption(default="tools/ruff.toml", help="The configuration, from the build root.")


@dataclass(frozen=True)
class RuffFieldSet(FieldSet):
    required_fields = (PythonSourceField,)

    source: PythonSourceField


class RuffLintRequest(LintTargetsRequest):
    field_set_type = RuffFieldSet
    tool_subsystem = RuffSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


class RuffFmtRequest(FmtTargetsRequest):
    field_set_type = RuffFieldSet
    tool_subsystem = RuffSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@dataclass(frozen=True)
class Ruff:
    pex: VenvPex
    config_path: str
    config: Digest


@rule
async def find_ruff(subsystem: RuffSubsystem) -> Ruff:
    pex, config = await MultiGet(
        Get(VenvPex, PexRequest, tool_pex("ruff", "ruff")),
        Get(Digest, PathGlobs([subsystem.config])),
    )
    return Ruff(pex, subsystem.config, config)


async def _process(
    ruff: Ruff, args: tuple[str, ...], files: tuple[str, ...], digest: Digest
) -> VenvPexProcess:
    return VenvPexProcess(
        ruff.pex,
        argv=(*args, "--no-cache", f"--config={ruff.config_path}", *files),
        input_digest=await Get(Digest, MergeDigests((digest, ruff.config))),
        output_files=files,
        description=f"Run ruff {args[0]} on {pluralize(len(files), 'file')}",
        level=LogLevel.DEBUG,
    )


@rule(desc="Lint with ruff", level=LogLevel.DEBUG)
async def ruff_lint(request: RuffLintRequest.Batch[RuffFieldSet, Any], ruff: Ruff) -> LintResult:
    sources = await Get(SourceFiles, SourceFilesRequest(fs.source for fs in request.elements))
    process = await _process(ruff, ("check",), sources.files, sources.snapshot.digest)
    return LintResult.create(request, await Get(FallibleProcessResult, VenvPexProcess, process))


@rule(desc="Format with ruff", level=LogLevel.DEBUG)
async def ruff_fmt(request: RuffFmtRequest.Batch, ruff: Ruff) -> FmtResult:
    # --exit-zero, because `lint` reports what cannot be fixed.
    sort_imports = ("check", "--select=I", "--fix", "--exit-zero", "--quiet")
    digest = request.snapshot.digest
    for args in (sort_imports, ("format",)):
        process = await _process(ruff, args, request.files, digest)
        result = await Get(ProcessResult, VenvPexProcess, process)
        digest = result.output_digest
    return await FmtResult.create(request, result)


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *RuffLintRequest.rules(), *RuffFmtRequest.rules())
