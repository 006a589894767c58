"""The diff report as a reader uses it: alone, and as a part of the page of an experiment."""

import pytest
from playwright.sync_api import expect

# Where a target lies, whether anything lies on it or on its file's header, and how it looks.
PLACE = """id => {
  const target = document.getElementById(id);
  const row = target.offsetParent && getComputedStyle(target).visibility === "visible"
    ? target : target.parentElement;
  const box = row.getBoundingClientRect();
  const shows = (e, at) => e.contains(document.elementFromPoint(at.left + 20, at.top + 3));
  const head = target.closest(".file").querySelector("summary");
  return {
    top: box.top,
    bottom: box.bottom,
    uncovered: shows(row, box) && shows(head, head.getBoundingClientRect()),
    folded: [...document.querySelectorAll("details:not([open])")].some((e) => e.contains(target)),
    lit: [...row.closest("tr").cells].some((cell) =>
      getComputedStyle(cell).boxShadow !== "none" && cell.getBoundingClientRect().width > 100),
  };
}"""
# Lines by where they stand: seen, in a file that begins closed, of the old side.
LINES = """() => {
  const found = {};
  const take = (kind, cell) => { (found[kind] ??= []).push(cell.id); };
  for (const cell of document.querySelectorAll(".gd td.n[id]")) {
    const right = /R\\d+$/.test(cell.id);
    const own = cell.nextElementSibling.className;
    if (!cell.closest("details.file").open) take("closed", cell);
    else if (own === "a") take("added", cell);
    else if (own === "r") take("removed", cell);
    else take(right ? "same" : "same of the old side", cell);
  }
  const middle = (ids) => ids[Math.floor(ids.length / 2)];
  return Object.fromEntries(Object.entries(found).map(([kind, ids]) => [kind, middle(ids)]));
}"""
KINDS = {
    "closed",
    "added",
    "removed",
    "same",
    "same of the old side",
}


@pytest.fixture(params=["alone", "in the site"])
def place(request):
    return request.getfixturevalue("report" if request.param == "alone" else "variant")


@pytest.mark.parametrize(
    "place, width, kinds",
    [
        ("alone", 1440, KINDS),
        ("alone", 375, KINDS),
        ("in the site", 1440, {"removed", "added"}),
        ("in the site", 375, {"same of the old side", "same"}),
    ],
    indirect=["place"],
)
def test_deep_links_land(place, visit, width, kinds):
    lines = visit(place, width=width).evaluate(LINES)
    # A variant of the site need not have a file that begins closed.
    assert set(lines) | {"closed"} == KINDS and kinds <= set(lines)
    for kind in sorted(kinds):
        anchor = lines[kind]
        page = visit(place, anchor, width=width)
        page.wait_for_timeout(100)  # it scrolls once the page is laid out
        at = page.evaluate(PLACE, anchor)
        assert at["uncovered"] and at["lit"] and not at["folded"], (kind, anchor, at)
        assert 0 <= at["top"] < at["bottom"] <= 900, (kind, anchor, at)


def test_a_click_on_a_line_number_lights_it(report, visit):
    page = visit(report)
    page.locator("td.n:has(+ td.a) a").first.click()
    cell = page.locator("td.n:target")
    assert page.url.endswith(f"#{cell.get_attribute('id')}")
    assert page.evaluate(PLACE, cell.get_attribute("id"))["uncovered"]


def test_moved_code_links_to_its_other_place(report, visit):
    page = visit(report)
    page.get_by_role("link", name="moved to").first.click()
    expect(page.locator("td.n:target")).to_be_in_viewport()
    assert page.locator("tr:has(td:target) a", has_text="moved from").count() == 1


@pytest.mark.parametrize("script", [True, False], ids=["scripts", "no scripts"])
def test_files_open_and_close(report, visit, script):
    page = visit(report, java_script_enabled=script)
    file = page.locator("details.file", has=page.locator("code", has_text="model.py")).first
    expect(file.locator("p.was", has_text="unchanged lines").first).to_contain_text("class Table")
    assert file.locator("table").first.is_visible()
    file.locator("summary").click()
    assert not file.locator("table").first.is_visible()
    file.locator("summary").focus()
    page.keyboard.press("Enter")
    assert file.locator("table").first.is_visible()
    tests = page.locator("details.file", has=page.locator("code", has_text="test_model.py"))
    assert not tests.locator("table").first.is_visible()


@pytest.mark.parametrize("width, beside", [(1440, True), (768, False)])
def test_the_list_of_files_stays_in_view_where_there_is_room(report, visit, width, beside):
    page = visit(report, width=width)
    tree = page.get_by_role("navigation", name="Changed files")
    page.locator("details.file").last.scroll_into_view_if_needed()
    box, file = tree.bounding_box(), page.locator("details.file").last.bounding_box()
    assert (box["x"] + box["width"] <= file["x"] and box["y"] >= 0) == beside
    tree.get_by_role("link", name="test_model.py").click()
    expect(page.locator("details.file", has_text="test_model.py").last).to_be_in_viewport()


def test_a_printed_report_is_black_on_white(report, visit):
    page = visit(report, scheme="dark")
    page.emulate_media(media="print")
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    assert page.locator(".gd").evaluate(colours) == ["rgb(31, 35, 40)", "rgb(255, 255, 255)"]
    expect(page.get_by_role("navigation", name="Changed files")).not_to_be_visible()


@pytest.mark.parametrize("width, columns", [(1440, 2), (768, 2), (754, 2), (750, 1), (375, 1)])
def test_side_by_side_from_720_px(report, visit, width, columns):
    """The report has 16 px of margin, and a border, on both sides."""
    page = visit(report, width=width)
    row = page.locator("tr:has(> td.r):has(> td.a)").first
    row.scroll_into_view_if_needed()
    # At once: the page may still be laid out between two questions.
    old, new = row.evaluate(
        "row => ['td.r', 'td.a'].map((side) => row.querySelector(side).getBoundingClientRect())"
        ".map(({x, y, width, height}) => ({x, y, width, height}))"
    )
    if columns == 2:
        assert old["y"] == new["y"] and old["x"] + old["width"] <= new["x"]
    else:
        assert old["x"] == new["x"] and old["y"] + old["height"] <= new["y"]
    assert old["width"] > width / 3 and new["width"] > width / 3


def test_long_lines_are_wrapped_and_whole(report, visit):
    page = visit(report, width=375)
    cell = page.locator("td.a", has_text="WWWW")
    assert "W" * 400 in cell.text_content()
    assert cell.bounding_box()["height"] > 100
    assert cell.evaluate("e => e.scrollWidth <= e.clientWidth + 1")


@pytest.mark.parametrize("width", [1440, 375])
def test_what_is_copied_is_the_text(report, visit, width):
    page = visit(report, width=width)
    file = page.locator("details.file", has=page.locator("code", has_text="extra.py"))
    file.locator("table").first.evaluate("e => getSelection().selectAllChildren(e)")
    page.keyboard.press("Control+C")
    # A page of this machine may have a field to paste into.
    other = page.context.new_page()
    other.set_content("<textarea autofocus></textarea>")
    other.locator("textarea").focus()
    other.keyboard.press("Control+V")
    lines = other.locator("textarea").input_value().strip().splitlines()
    assert [line.strip() for line in lines if line.strip()] == [
        "def added(x: int) -> int:",
        "return x + 1  # tab",
        *(f"setting_{n} = compute_setting({n})" for n in range(4)),
    ]


def test_the_policy_forbids_all_and_blocks_nothing(report, visit, watch):
    page = visit(report)
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    # A violation would be an error on the console, which fails every test; the style applies:
    assert page.evaluate("getComputedStyle(document.querySelector('td.a')).backgroundColor") == (
        "rgb(218, 251, 225)"
    )
    assert [url for url in watch.requests if not url.endswith("/index.html")] == []
    # And it does forbid.
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'data:image/gif,'}))")
    page.wait_for_timeout(100)
    blocked, watch.faults[:] = list(watch.faults), []
    assert any("Content Security Policy" in fault for fault in blocked)


def test_without_scripts_the_report_shows(place, visit):
    page = visit(place, java_script_enabled=False)
    report = page.locator(".gd").first
    expect(report.get_by_role("heading", name="Change buckets")).to_be_visible()
    expect(report.locator("details.file[open] > table td.a").first).to_be_visible()
