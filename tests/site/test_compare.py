"""The page that sets experiments side by side: what it draws, says, and gives away."""

import csv
import io
import json

import pytest
from playwright.sync_api import expect


@pytest.fixture
def place(site):
    return site / "reports/compare.html"


@pytest.fixture
def data(site):
    return json.loads((site / "reports/compare.json").read_text())["experiments"]


def values(page, figure, where):
    """What the legend says when the pointer is at a share of the plot's width."""
    over = page.locator(".grug-panel").nth(figure).locator(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] * where, box["y"] + box["height"] / 2)
    rows = page.locator(".grug-panel").nth(figure).locator(".u-legend tr.u-series")
    texts = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    return {name.strip(": "): value for name, value in texts}


@pytest.mark.parametrize("served", [False, True], ids=["disk", "served"])
def test_an_experiment_is_drawn_beside_its_origin(place, server, data, visit, served):
    name, origin = "nnx", "base"  # of as many steps
    address = f"{server}/reports/compare.html" if served else place.as_uri()
    page = visit(f"{address}?show={name}")
    checked = page.locator(".grug-choices label", has=page.locator("input:checked"))
    assert {label.inner_text().strip() for label in checked.all()} == {name, origin}
    ends = {one["name"]: one["curve"][-1][4] for one in data}
    # The pointer at the right edge reads the last values.
    assert float(values(page, 0, 0.999)[name]) == pytest.approx(ends[name], abs=1e-4)
    difference = ends[name] - ends[origin]
    assert float(values(page, 1, 0.999)[name]) == pytest.approx(difference, abs=1e-4)
    row = page.locator(".grug-compare table.grug-ends tr", has_text=name)
    expect(row).to_contain_text(f"{ends[name]:.4f}")


def test_the_choice_is_kept_in_the_address(place, visit):
    page = visit(f"{place.as_uri()}?show=moe")
    page.get_by_label("Over").select_option("FLOPs")
    page.get_by_label("log across").check()
    page.get_by_label("base", exact=True).uncheck()
    assert "x=FLOPs" in page.url and "logx=1" in page.url and "show=moe" in page.url
    page.reload()
    expect(page.get_by_label("Over")).to_have_value("FLOPs")
    expect(page.get_by_label("log across")).to_be_checked()


def test_axes_and_references(place, visit):
    page = visit(f"{place.as_uri()}?show=nnx")
    for axis in ("time", "FLOPs", "tokens"):
        page.get_by_label("Over").select_option(axis)
        assert page.locator(".grug-panel canvas").count() == 2
    page.get_by_label("log upwards").check()
    assert page.locator(".grug-panel canvas").count() == 2
    page.get_by_label("Differences from").select_option("nnx")
    expect(page.locator(".grug-panel").nth(1)).to_contain_text("Difference from nnx")
    assert "base" in values(page, 1, 0.999)


def test_the_palette_reaches_the_plots(place, visit):
    page = visit(f"{place.as_uri()}?show=moe")
    pixels = "document.querySelector('.grug-panel canvas').toDataURL()"
    before = page.evaluate(pixels)
    page.get_by_title("Use the light colours").click()
    page.get_by_title("Use the dark colours").click()
    page.wait_for_timeout(200)
    assert page.evaluate(pixels) != before


def test_the_numbers_can_be_taken_away(site, place, data, visit):
    page = visit(place)
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(found.value.path().read_text())))
    assert len(rows) == sum(len(one["curve"]) for one in data)
    last = [row for row in rows if row["experiment"] == "moe"][-1]
    assert float(last["bpb"]) == next(o for o in data if o["name"] == "moe")["curve"][-1][4]


def test_without_scripts_there_is_a_picture(place, visit):
    page = visit(place, java_script_enabled=False)
    expect(page.locator("svg.grug-chart")).to_have_count(2)
    expect(page.get_by_role("link", name="CSV")).to_be_visible()


def test_the_library_is_small_and_loaded_here_alone(site, visit, watch):
    assert (site / "assets/uplot/uPlot.iife.min.js").stat().st_size < 100_000
    assert (site / "assets/uplot/LICENSE").is_file()
    visit(site / "reports/grug-archive.html")
    assert not any("uplot" in url for url in watch.requests)
