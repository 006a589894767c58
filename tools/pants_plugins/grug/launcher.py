"""Makes the launcher depend on every variant that it can run, without a list to maintain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pants.backend.python.target_types import PythonSourceField
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import (
    AllTargets,
    FieldSet,
    InferDependenciesRequest,
    InferredDependencies,
)
from pants.engine.unions import UnionRule

from grug.workspace import GrugSubsystem


@dataclass(frozen=True)
class LauncherFieldSet(FieldSet):
    required_fields = (PythonSourceField,)

    source: PythonSourceField


class InferLauncherDependencies(InferDependenciesRequest):
    infer_from = LauncherFieldSet


@rule
async def infer_launcher_dependencies(
    request: InferLauncherDependencies, grug: GrugSubsystem, targets: AllTargets
) -> InferredDependencies:
    """Adds each variant's launch.py, whose own imports bring the rest."""
    if request.field_set.address.spec != grug.launcher:
        return InferredDependencies([])
    return InferredDependencies(
        target.address
        for target in targets
        if target.has_field(PythonSourceField)
        and target.address.is_file_target
        and target.address.filename.endswith("/launch.py")
        and grug.variant_of(target.address.filename)
    )


def rules() -> Iterable[Rule | UnionRule]:
    return (
        *collect_rules(),
        UnionRule(InferDependenciesRequest, InferLauncherDependencies),
    )
