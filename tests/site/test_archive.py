"""The archive's table, tags and tree."""

import re

import pytest
from playwright.sync_api import expect


@pytest.fixture
def index(site):
    return site / "reports/grug-archive.html"


def column(page, label):
    """What the rows say in a column, from the top."""
    cells = page.locator(f"table.grug-index td[data-label='{label}']")
    return [
        (cell.get_attribute("data-sort") or cell.text_content().strip()) for cell in cells.all()
    ]


# So many rows that the window does not hold them.
LONG = """() => {
  const body = document.querySelector("table.grug-index").tBodies[0];
  for (let n = 0; n < 100; n += 1) {
    const copy = body.rows[0].cloneNode(true);
    copy.id = `long-${n}`;
    body.append(copy);
  }
}"""
# Rows enough to tell an order of numbers from one of letters; what is not known comes last.
ROWS = """() => {
  const body = document.querySelector("table.grug-index").tBodies[0];
  const row = body.rows[body.rows.length - 1];
  ["9", "10", "", "-2", "100"].forEach((value, n) => {
    const copy = row.cloneNode(true);
    copy.id = `copy-${n}`;
    const cell = (label) => copy.querySelector(`[data-label="${label}"]`);
    const [name, changed] = [cell("Experiment"), cell("Changed")];
    name.dataset.sort = `copy ${n}`;
    changed.dataset.sort = value;
    changed.textContent = value;
    if (!value) delete changed.dataset.sort;
    body.append(copy);
  });
}"""


def test_the_table_sorts_by_each_column(index, visit):
    page = visit(index)
    heads = page.locator("table.grug-index th")
    assert heads.count() == 8 and page.locator("th[aria-sort]").count() == 0
    page.evaluate(ROWS)
    for label, key in (("Changed", float), ("Experiment", str)):
        head = page.locator("th", has_text=label)
        for order in ("ascending", "descending"):
            head.get_by_role("button").click()
            expect(head).to_have_attribute("aria-sort", order)
            assert page.locator("th[aria-sort]").count() == 1
            result = column(page, label)
            known = [key(value) for value in result if value]
            assert known == sorted(known, reverse=order == "descending") and len(set(known)) > 3
            assert all(result[: len(known)])


def test_the_table_sorts_with_the_keyboard(index, visit):
    page = visit(index)
    page.get_by_role("button", name="Experiment").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    expect(page.locator("th", has_text="Experiment")).to_have_attribute("aria-sort", "descending")
    names = column(page, "Experiment")
    assert names == sorted(names, reverse=True) and len(names) > 1


@pytest.mark.parametrize("width", [1440, 375])
def test_without_scripts_the_table_shows(index, variant, visit, width):
    page = visit(index, width=width, java_script_enabled=False)
    row = page.locator(f"table.grug-index tr#{variant.stem}")
    expect(row.get_by_role("link", name=variant.stem, exact=True)).to_be_visible()
    expect(row.locator("td[data-label='Asked and learned']")).to_be_visible()
    assert page.locator("table.grug-index button").count() == 0
    expect(page.locator("svg.grug-lineage")).to_be_visible()


def test_tags_lead_to_the_experiments_like_it_and_the_tree_to_its_pages(index, variant, visit):
    page = visit(variant)
    tag = page.locator(".grug-tags a").nth(1)
    bucket = tag.text_content()
    tag.click()
    expect(page.get_by_label("Bucket")).to_have_value(re.sub(r"[^a-z0-9]+", "-", bucket.lower()))
    shown = page.locator("table.grug-index tbody tr:visible")
    assert 0 < shown.count() < page.locator("table.grug-index tbody tr").count()
    for row in shown.all():
        expect(row).to_contain_text(bucket)
    page.locator(f"svg.grug-lineage a[href$='/{variant.stem}.html']").click()
    expect(page).to_have_title(re.compile(variant.stem))


@pytest.mark.parametrize("served", [False, True], ids=["disk", "served"])
def test_filters_are_kept_in_the_address(index, server, variant, visit, served):
    page = visit(f"{server}/reports/grug-archive.html" if served else index)
    rows = page.locator("table.grug-index tbody tr:visible")
    everything = rows.count()
    page.get_by_label("Words").fill(f"{variant.stem} equal")
    expect(rows).to_have_count(1)
    expect(page.get_by_role("status")).to_have_text(f"1 of {everything} experiments")
    page.get_by_role("button", name="Held out").click()
    assert "words=" in page.url and "sort=Held+out" in page.url
    page.get_by_label("Status").select_option("deleted")
    expect(rows).to_have_count(0)
    page.get_by_label("Status").select_option("")
    page.reload()
    expect(rows).to_have_count(1)
    assert not page.locator("#__search").is_checked()  # the theme's own search stays closed
    expect(page.get_by_label("Words")).to_have_value(f"{variant.stem} equal")
    expect(page.locator("th", has_text="Held out")).to_have_attribute("aria-sort", "ascending")
    assert "status=" not in page.url


def test_an_address_cannot_bring_a_filter_that_is_none(index, visit):
    page = visit(f"{index.as_uri()}?status=%3Cimg%3E&bucket=none&sort=nothing")
    assert page.locator("table.grug-index tbody tr:visible").count() > 1


def test_the_heads_and_the_tree_stay_in_sight(index, visit):
    page = visit(index)
    page.evaluate(LONG)
    page.mouse.wheel(0, 6000)
    page.wait_for_timeout(300)
    header = page.locator(".md-header").bounding_box()
    head = page.locator("table.grug-index th").first
    expect(head).to_be_in_viewport()
    assert head.bounding_box()["y"] >= header["y"] + header["height"] - 1
    expect(page.get_by_role("heading", name="Lineage")).to_be_in_viewport()


def test_the_tree_is_beside_the_table_or_above_it(index, visit):
    place = "document.querySelector('{}').getBoundingClientRect()"
    tree, table = (place.format(name) for name in (".grug-tree", ".grug-list"))
    wide, narrow = (visit(index, width=width) for width in (1440, 390))
    assert wide.evaluate(f"{tree}.left >= {table}.right && Math.abs({tree}.top - {table}.top) < 40")
    assert narrow.evaluate(f"{tree}.bottom <= {table}.top && {tree}.height < innerHeight * 0.6")


def test_a_link_to_a_row_lights_it(index, variant, visit):
    page = visit(index, variant.stem)
    row = page.locator(f"tr#{variant.stem}")
    expect(row).to_be_in_viewport()
    plain = page.locator("tbody tr:not(:target)").first
    colour = "e => getComputedStyle(e).backgroundColor"
    assert row.evaluate(colour) != plain.evaluate(colour)
