"""The backend `grug`: which rules Pants loads."""

from __future__ import annotations

from collections.abc import Iterable

from pants.engine.rules import Rule
from pants.engine.unions import UnionRule

from grug import ruff, shellcheck, ty


def rules() -> Iterable[Rule | UnionRule]:
    return (*ruff.rules(), *shellcheck.rules(), *ty.rules())
