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


# Rows enough to tell an order of numbers from one of letters; what is not known comes last.
ROWS = """() => {
  const body = document.querySelector("table.grug-index").tBodies[0];
  const row = body.rows[body.rows.length - 1];
  ["9", "10", "", "-2", "100"].forEach((value, n) => {
    const copy = row.cloneNode(true);
    copy.id = `copy-${n}`;
    const cell = (label) => copy.querySelector(`[data-label="${label}"]`);
    const [name, changed] = [cell("Name"), cell("Changed")];
    name.textContent = `copy ${n}`;
    changed.dataset.sort = value;
    changed.textContent = value;
    if (!value) delete changed.dataset.sort;
    body.append(copy);
  });
}"""


def test_the_table_sorts_by_each_column(index, visit):
    page = visit(index)
    heads = page.locator("table.grug-index th")
    assert heads.count() == 9 and page.locator("th[aria-sort]").count() == 0
    page.evaluate(ROWS)
    for label, key in (("Changed", float), ("Name", str)):
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
    page.get_by_role("button", name="Name").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    expect(page.locator("th", has_text="Name")).to_have_attribute("aria-sort", "descending")
    names = column(page, "Name")
    assert names == sorted(names, reverse=True) and len(names) > 1


@pytest.mark.parametrize("width", [1440, 375])
def test_without_scripts_the_table_shows(index, variant, visit, width):
    page = visit(index, width=width, java_script_enabled=False)
    row = page.locator(f"table.grug-index tr#{variant.stem}")
    expect(row.get_by_role("link", name=variant.stem, exact=True)).to_be_visible()
    expect(row.locator("td[data-label='Verdict']")).to_be_visible()
    assert page.locator("table.grug-index button").count() == 0
    expect(page.locator("svg.grug-lineage")).to_be_visible()


def test_tags_lead_to_their_lists_and_the_tree_to_its_pages(index, variant, visit):
    page = visit(variant)
    tag = page.locator(".grug-tags a").nth(1)
    expected = tag.get_attribute("href").rpartition("#")[2]
    tag.click()
    term = page.locator(f"#{expected}")
    expect(term).to_be_in_viewport()
    header = page.locator(".md-header").bounding_box()
    assert term.bounding_box()["y"] >= header["y"] + header["height"]
    page.locator(f"svg.grug-lineage a[href$='/{variant.stem}.html']").click()
    expect(page).to_have_title(re.compile(variant.stem))


def test_a_link_to_a_row_lights_it(index, variant, visit):
    page = visit(index, variant.stem)
    row = page.locator(f"tr#{variant.stem}")
    expect(row).to_be_in_viewport()
    plain = page.locator("tbody tr:not(:target)").first
    colour = "e => getComputedStyle(e).backgroundColor"
    assert row.evaluate(colour) != plain.evaluate(colour)
