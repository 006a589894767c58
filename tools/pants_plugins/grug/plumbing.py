"""`lint` says of each copy whose plumbing it has: its origin's, or so many files of its own.

Own plumbing is allowed, and no failure: its `#plumbing` tests run, and the reader of a diff knows
to look there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from grug.isolation import IsolationLintFieldSet
from grug.variants import AllVariants, Ledger, VariantFacts, VariantFactsRequest
from grug.workspace import GrugSubsystem


class PlumbingSubsystem(Subsystem):
    options_scope = "grug-plumbing"
    name = "grug-plumbing"
    help = "Says whose plumbing each copy has: its origin's, or files of its own."

    skip = SkipOption("lint")


class PlumbingLintRequest(LintTargetsRequest):
    field_set_type = IsolationLintFieldSet
    tool_subsystem = PlumbingSubsystem  # ty: ignore[invalid-assignment]
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@rule(desc="Compare the plumbing of copies", level=LogLevel.DEBUG)
async def lint_plumbing(
    request: PlumbingLintRequest.Batch[IsolationLintFieldSet, Any],
    every: AllVariants,
    ledger: Ledger,
    grug: GrugSubsystem,
) -> LintResult:
    by_path = {target.address.spec_path: target for target in every}
    linted = {grug.variant_of(field_set.source.file_path) for field_set in request.elements}
    pairs = [
        (by_path[path], by_path[origin])
        for path, origin in sorted(ledger.origins.items())
        if path in linted and path in by_path and origin in by_path
    ]
    facts = await MultiGet(Get(VariantFacts, VariantFactsRequest(*pair)) for pair in pairs)
    lines = [
        f"{copy.address.spec_path}: plumbing: {whose}"
        for (copy, _), fact in zip(pairs, facts)
        if (whose := json.loads(fact.json)["plumbing"])
    ]
    return LintResult(
        exit_code=0,
        stdout="\n".join(lines),
        stderr="",
        linter_name=request.tool_name,
        partition_description=None,
    )


def rules() -> Iterable[Rule | UnionRule]:
    return (*collect_rules(), *PlumbingLintRequest.rules())
