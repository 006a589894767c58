"""The backend `grug`: which rules and target types Pants loads."""

from __future__ import annotations

from collections.abc import Iterable

from pants.engine.rules import Rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule

from grug import (
    bundle,
    contract,
    diff,
    isolation,
    launcher,
    lifecycle,
    plumbing,
    records,
    ruff,
    serve,
    shellcheck,
    site,
    tool,
    ty,
    variants,
    zizmor,
)
from grug import target_types as types


def target_types() -> Iterable[type[Target]]:
    return (*serve.target_types(), *site.target_types(), *types.target_types())


def rules() -> Iterable[Rule | UnionRule]:
    return (
        *bundle.rules(),
        *contract.rules(),
        *diff.rules(),
        *isolation.rules(),
        *launcher.rules(),
        *lifecycle.rules(),
        *plumbing.rules(),
        *records.rules(),
        *ruff.rules(),
        *serve.rules(),
        *shellcheck.rules(),
        *site.rules(),
        *tool.rules(),
        *ty.rules(),
        *types.rules(),
        *variants.rules(),
        *zizmor.rules(),
    )
