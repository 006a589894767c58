"""Which variant a path belongs to."""

from __future__ import annotations

import pytest
from pants.testutil.option_util import create_subsystem

from grug.workspace import GrugSubsystem

ROOTS = ["experiments/grug", "experiments/speedrun"]


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("experiments/grug/moe/model.py", "experiments/grug/moe"),
        ("experiments/grug/moe/deep/er.py", "experiments/grug/moe"),
        ("experiments/grug/moe/", "experiments/grug/moe"),
        ("experiments/speedrun/2026-01-31_relu/run.py", "experiments/speedrun/2026-01-31_relu"),
        # Directly under a root: of no variant, else all variants would be scanned as one.
        ("experiments/grug/buckets.json", None),
        ("experiments/grug/", None),
        ("experiments/grug//", None),
        ("experiments/grug2/moe/model.py", None),
        ("docs/experiments/grug/moe/x.md", None),
    ],
)
def test_variant_of(path: str, variant: str | None) -> None:
    assert create_subsystem(GrugSubsystem, roots=ROOTS).variant_of(path) == variant
