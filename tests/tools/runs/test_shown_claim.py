"""The claims that the documentation shows are those that the recorded runs allow."""

import re
from pathlib import Path

from tools.runs.claim import claims, render
from tools.runs.compare_runs import Comparison

ROOT = Path(__file__).parents[3]


def test_the_claim_that_the_guide_shows():
    """Each line of it is printed, but for what `...` stands for."""
    guide = (ROOT / "docs/how-to/compare-runs.md").read_text()
    shown = [line[4:] for line in guide.splitlines() if re.match(r"    (moe \(|  )", line)]
    printed = [render(found).splitlines() for found in claims(ROOT, "moe")]
    (real,) = (lines for lines in printed if lines[0] == shown[0])
    assert len(shown) == 5
    for line, whole in zip(shown, real, strict=False):
        assert whole.startswith(line.removesuffix("...")), (line, whole)


def test_the_reference_names_a_run_that_compares():
    page = (ROOT / "docs/reference/archive.md").read_text()
    (origin,) = re.findall(r"runs:claim -- moe --against (base@base-\S+)", page)
    assert any(isinstance(found, Comparison) for found in claims(ROOT, "moe", origin)[:1])
