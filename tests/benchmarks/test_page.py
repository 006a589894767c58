import dataclasses
from pathlib import Path

import pytest

from tests.benchmarks import page
from tests.benchmarks.measure import Aim, BenchmarkError, Report, Series, Spread, Table

ROOT = Path(__file__).parents[2]
FOUND = Table(
    "Speed",
    "tokens/s",
    "more",
    (
        Series("tiny", "ours", (3000.0, 3300.0), {"MiB": 20}),
        Series("tiny", "peer", (2000.0, 2200.0), {"GFLOP/s": 1.25}),
    ),
)
REPORT = Report(
    benchmark="step",
    date="2026-01-02",
    commit="abc",
    machine={"cpu": "C", "cores": 2, "memory_gib": 8, "kernel": "Linux 6"},
    load=0.25,
    versions={"jax": "1"},
    options={"rounds": 2},
    tables=(FOUND,),
    aims=(Aim("speed", Spread(1.5, 1.4, 1.6), "at least", 1.2),),
    missing={"other": "it failed"},
)
TEMPLATE = "# B\n\n@overview@\n\n## step\n\n@step@\n\n## gpu\n\n@gpu@\n"


def test_the_page_is_current():
    assert (ROOT / page.PAGE).read_text() == page.current(ROOT), (
        "docs/benchmarks.md is not that of the results: ./pants run tests/benchmarks:page"
    )


def test_a_table_compares_with_ours_and_shows_facts():
    assert page.render_table(FOUND).splitlines() == [
        "| contestant | tokens/s, median (least–most) | ours is better by | MiB | GFLOP/s |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| tiny: ours | 3,150 (3,000–3,300) |  | 20 |  |",
        "| tiny: peer | 2,100 (2,000–2,200) | 1.50× (1.50–1.50) |  | 1.25 |",
    ]


def test_a_table_without_peers_compares_nothing():
    alone = dataclasses.replace(FOUND, series=(Series("4 layers", "ours", (0.5,)),))
    assert page.render_table(alone).splitlines() == [
        "| case | tokens/s |",
        "| --- | ---: |",
        "| 4 layers | 0.50 |",
    ]


def test_a_table_shows_what_was_before():
    """In brackets, where it was something else; a row may have no value."""
    series = (Series("a", "g", (0.5,), {"fits": "yes", "GB": 2.0}), Series("b", "g", ()))
    now = dataclasses.replace(FOUND, series=series)
    series = (Series("a", "g", (0.75,), {"fits": "yes", "GB": 3.0}), Series("b", "g", (1.0,)))
    old = dataclasses.replace(FOUND, series=series)
    assert page.render_table(now, (old,)).splitlines()[2:] == [
        "| a | 0.50 (0.75) | yes | 2.00 (3.00) |",
        "| b | (1.00) |  |  |",
    ]
    reports = {"step": dataclasses.replace(REPORT, tables=(now,))}
    reports["step_before"] = dataclasses.replace(REPORT, tables=(old,), commit="old")
    text = page.render(TEMPLATE, reports, {})
    assert "| a | 0.50 (0.75) |" in text
    assert "In brackets: before, 2026-01-02, commit old." in text


def test_the_page_tells_what_is_reached_missing_and_not_measured():
    text = page.render(TEMPLATE, {"step": REPORT}, {})
    assert "| [step](#step) | speed | at least 1.20 | 1.50 (1.40–1.60) | reached |" in text
    assert "| [gpu](#gpu) |  |  | not measured yet |  |" in text
    assert "## gpu\n\nNot measured yet." in text
    assert "Not measured: other: it failed." in text
    assert "C, 2 cores, 8 GiB, Linux 6; 2026-01-02, commit abc; load 0.2 before" in text


def test_what_is_behind_is_shown_with_its_why_or_refused():
    aim = dataclasses.replace(REPORT.aims[0], bound=2.0)
    behind = {"step": dataclasses.replace(REPORT, aims=(aim,))}
    with pytest.raises(BenchmarkError, match="behind in speed: write why into .*results/step.md"):
        page.render(TEMPLATE, behind, {})
    text = page.render(TEMPLATE, behind, {"step": "The peer fuses more."})
    assert "**behind**" in text and "The peer fuses more." in text


def test_results_without_a_place_are_refused():
    with pytest.raises(BenchmarkError, match="no place for other"):
        page.render(TEMPLATE, {"other": REPORT}, {})
