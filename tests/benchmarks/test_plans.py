import argparse
import re
from pathlib import Path

import pytest

from tests.benchmarks import plans
from tests.benchmarks.measure import BenchmarkError, Report

STEP = {
    "ratio": 1.27,
    "bytes_accessed": 7.5e10,
    "collectives": {"all-gather": 3e8, "all-reduce": 5e8},
    "roofline": {"step_seconds": 0.09, "binds": "memory", "mfu": 0.25},
}
COMPILED = {"fits": True, "error": "", "peaks": {"step": 2 * 2**30}, "step": STEP}
MADE = {"compiled": COMPILED, "memory": {"weights": 2**30, "optimizer": 2**29}}


def flags(path: Path | None, *presets: str) -> argparse.Namespace:
    return argparse.Namespace(
        benchmark="plans",
        variants=["base"],
        presets=list(presets),
        topologies=["v5e:4x4"],
        limit_s=60,
        json=path,
    )


def test_a_row_tells_what_a_plan_says():
    row = plans.series("base 130m, v5e:4x4", MADE)
    assert row.values == pytest.approx((90.0,))
    assert row.facts == pytest.approx({
        "fits": "yes",
        "peak, GiB": 2.0,
        "estimate / peak": 0.75,
        "FLOPs / the model's": 1.27,
        "memory traffic, GB": 75.0,
        "collectives, GB": 0.8,
        "binds": "memory",
        "highest MFU, %": 25.0,
    })  # fmt: skip


@pytest.mark.parametrize(
    "error, expected",
    [
        ("total memory required for HLO temporaries (18.54G) exceeds available HBM (15.75G).",
         "no: 18.54G of 15.75G"),
        ("Ran out of memory in memory space hbm. Used 22.70G of 15.75G hbm.",
         "no: 22.70G of 15.75G"),
        ("16.1 GiB at the peak of the step exceed 15.8 GiB", "no"),
    ],
)  # fmt: skip
def test_a_row_of_what_does_not_fit(error, expected):
    failed = {"fits": False, "error": error, "peaks": {}, "step": None}
    row = plans.series("base 1b, v5e:1x1", MADE | {"compiled": failed})
    assert (row.values, row.facts) == ((), {"fits": expected})


def test_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    """And makes again what failed, or what has other sources."""
    asked, out = [], tmp_path / "plans.json"

    def plan(variant, preset, topology, limit):
        asked.append(preset)
        if preset == "1b" and asked.count("1b") == 1:
            raise BenchmarkError("it took more than 60 s")
        return MADE

    (tmp_path / "tools/locks").mkdir(parents=True)
    (tmp_path / "tools/locks/tpu.lock").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plans, "plan", plan)
    plans.main(flags(out, "130m", "1b"), 0.0)
    report = Report.read(out)
    assert [one.case for one in report.tables[0].series] == ["base 130m, v5e:4x4"]
    assert report.missing == {"base 1b, v5e:4x4": "it took more than 60 s"}
    plans.main(flags(out, "1b"), 0.0)
    said = capsys.readouterr()
    assert asked == ["130m", "1b", "1b"]
    report = Report.read(out)
    assert [one.case for one in report.tables[0].series] == [
        "base 1b, v5e:4x4",
        "base 130m, v5e:4x4",
    ]
    assert not report.missing and "1 of 2: base 130m, v5e:4x4 ..." in said.err
    (tmp_path / "tools/locks/tpu.lock").write_text("{ }")
    plans.main(flags(out, "130m"), 0.0)
    assert asked == ["130m", "1b", "1b", "130m"]
    assert len(Report.read(out).tables[0].series) == 1
    plans.main(flags(out, "130m"), 0.0)
    assert asked == ["130m", "1b", "1b", "130m"]
    assert "1 of 1: base 130m, v5e:4x4 is known" in capsys.readouterr().err


def test_sources_and_locks_are_what_a_plan_depends_on(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/model.py").write_text("A = 1\n")
    first = plans.of_files("v", tmp_path)
    (tmp_path / "v/test_model.py").write_text("A = 1\n")
    assert plans.of_files("v", tmp_path) == first
    (tmp_path / "v/model.py").write_text("A = 2\n")
    assert plans.of_files("v", tmp_path) != first


def documented() -> list[tuple[str, str]]:
    """Pairs of a preset and the hardware that its default batch fits on, as the docs have them."""
    text = (plans.ROOT / "docs/reference/run.md").read_text()
    table = text.partition("### What fits")[2].partition("### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE)
    return [(preset, each) for preset, cell in rows for each in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("preset, topology", documented())
def test_what_the_docs_call_fitting_was_seen_to_fit(preset, topology):
    report = Report.read(plans.ROOT / "tests/benchmarks/results/plans.json")
    rows = {one.case: one for table in report.tables for one in table.series}
    facts = rows[f"base {preset}, {topology}"].facts
    assert facts["fits"] == "yes"
    low, high = (0.9, 1.1) if ":" in topology else (0.78, 0.95)
    assert low <= round(float(facts["estimate / peak"]), 2) <= high
