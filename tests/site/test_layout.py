"""No page is wider than its window, and none violates WCAG 2 A or AA, light or dark."""

import re
from itertools import product

import pytest

from tests.site.conftest import SCHEMES, WIDTHS

KINDS = (
    "home",
    "recipe",
    "reference",
    "benchmarks",
    "archive",
    "compare",
    "experiment",
    "speedruns",
    "report",
)

# Their lines are too many: those of a small report with one of each stand for them.
LARGE = ("experiment",)


@pytest.fixture
def page_of(site, variant, report):
    """The path of a kind of page."""
    return {
        "home": site / "index.html",
        "recipe": site / "recipes/change_grug.html",
        "reference": site / "reference/archive.html",
        "benchmarks": site / "benchmarks.html",
        "archive": site / "reports/grug-archive.html",
        "compare": site / "reports/compare.html",
        "experiment": variant,
        "speedruns": site / "speedrun/leaderboard.html",
        "report": report,
    }.__getitem__


# Shows what is folded away, and renders what is out of sight.
OPEN = """() => {
  document.querySelectorAll(".gd details").forEach((fold) => { fold.open = true; });
  const style = new CSSStyleSheet();
  style.replaceSync(".gd .file { content-visibility: visible !important; }");
  document.adoptedStyleSheets = [style];
}"""
REPLACE_LINES = """small => {
  const lines = "section[aria-labelledby=gd-lines]";
  const bare = small.replace(/<style>[^]*?<\\/style>/, "");
  const other = new DOMParser().parseFromString(bare, "text/html");
  document.querySelector(lines).replaceWith(other.querySelector(lines));
}"""
# Colours change at once, instead of fading into each other.
STILL = """() => {
  const style = new CSSStyleSheet();
  style.replaceSync("* { transition: none !important; }");
  document.adoptedStyleSheets = [style];
}"""
# The rules of axe of which the answer depends on colours.
COLOURS = ("color-contrast", "link-in-text-block")
# What a reader cannot get at: text cut off, or beyond the window's edge.
CLIPPED = """() => {
  const bad = [];
  const kinds = "main :is(h1, h2, h3, h4, dd, summary, :not(.d) > * > tr > td)";
  for (const e of document.querySelectorAll(kinds)) {
    const box = e.getBoundingClientRect();
    if (!box.width || e.closest(".wide, .grug-scroll, .md-typeset__scrollwrap, .h")) continue;
    if (box.right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 2 && e.clientWidth)
      bad.push(`${e.localName}: ${e.textContent.trim().slice(0, 60)}`);
  }
  return bad;
}"""


def look(page, width, scheme):
    """Makes the window so wide, and the reader one who prefers light or dark."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(300)  # the theme's colours fade into each other


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_scrolls_sideways(page_of, visit, kind):
    page = visit(page_of(kind))
    if kind not in LARGE:
        page.evaluate(OPEN)
    for width, scheme in product(WIDTHS, SCHEMES):
        look(page, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
        assert page.evaluate(CLIPPED) == [], (width, scheme)


@pytest.mark.parametrize("kind", KINDS)
def test_wcag(page_of, visit, axe, fragment, kind):
    page = visit(page_of(kind))
    if kind in LARGE:
        page.evaluate(REPLACE_LINES, fragment)
    page.evaluate(OPEN)
    for width, scheme in ((1440, "light"), (375, "dark")):
        look(page, width, scheme)
        assert axe(page) == [], (width, scheme)


def test_wcag_of_every_page(site, server, visit, axe, fragment):
    """As pages are shown; what is folded is opened above, on one page of each kind."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert "404.html" in pages and len(pages) > 40
    page = visit(f"{server}/", reduced_motion="reduce")
    found = {}
    for name in pages:
        page.emulate_media(color_scheme="light")
        page.goto(f"{server}/{name}")
        page.evaluate(STILL)
        if page.locator("section[aria-labelledby=gd-lines]").count():
            page.evaluate(REPLACE_LINES, fragment)
        found[name] = axe(page)
        page.emulate_media(color_scheme="dark")
        found[name] += axe(page, COLOURS)
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize("kind", ["home", "report"])
def test_light_and_dark_are_the_readers_choice(page_of, visit, kind):
    ground = "getComputedStyle(document.querySelector('main.gd') ?? document.body).backgroundColor"
    light, dark = (visit(page_of(kind), scheme=scheme).evaluate(ground) for scheme in SCHEMES)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")


def test_the_switch_takes_the_report_along(variant, visit):
    page = visit(variant)
    ground = "getComputedStyle(document.querySelector('.gd')).backgroundColor"
    page.get_by_title("Use the light colours").click()
    page.get_by_title("Use the dark colours").click()
    assert page.evaluate(ground) == "rgb(13, 17, 23)"


def test_what_scrolls_takes_the_keyboard(site, visit):
    """Tables of the benchmarks are wider than a telephone, and most of them not than a desk."""
    wraps = """[...document.querySelectorAll('.md-typeset__scrollwrap')]
      .map(e => [e.tabIndex === 0, e.scrollWidth > e.clientWidth])"""
    narrow, wide = (visit(site / "benchmarks.html", width=width) for width in (375, 1440))
    narrow.wait_for_selector(".md-typeset__scrollwrap[tabindex='0']")
    for page in (narrow, wide):
        assert all(takes == scrolls for takes, scrolls in page.evaluate(wraps))
    assert sum(takes for takes, _ in wide.evaluate(wraps)) < len(wide.evaluate(wraps)) / 2


def test_the_ends_of_compared_curves_fit_a_telephone(site, visit):
    page = visit(site / "reports/compare.html", width=390)
    page.wait_for_selector(".grug-ends td")
    wider = """[...document.querySelectorAll('.grug-compare, .grug-compare *')]
      .filter(e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth && e.localName != 'canvas')
      .map(e => e.className)"""
    assert page.evaluate(wider) == []


@pytest.mark.parametrize(
    "place, tab", [("reports/variants/base.html", "Archive"), ("speedrun/20*.html", "Speedruns")]
)
def test_a_page_that_no_list_names_shows_its_tab(site, visit, place, tab):
    page = visit(sorted(site.glob(place))[0])
    assert page.locator(".md-tabs__item--active").all_inner_texts() == [tab]


def test_an_address_that_leads_nowhere_leads_on(server, visit):
    page = visit(f"{server}/404.html")
    for name, title in (("the archive", "Archive of experiments"), ("the start page", "grug")):
        page.goto(f"{server}/404.html")
        page.get_by_role("link", name=name).click()
        assert page.get_by_role("heading", level=1).inner_text() == title


def test_on_paper_curves_have_the_colours_for_light_ground(site, visit):
    stroke = "getComputedStyle(document.querySelector('.grug-line.variant')).stroke"
    page = visit(site / "reports/variants/moe.html", scheme="dark")
    dark = page.evaluate(stroke)
    page.emulate_media(media="print", color_scheme="dark")
    light = visit(site / "reports/variants/moe.html", scheme="light").evaluate(stroke)
    assert page.evaluate(stroke) == light != dark


def test_on_paper_a_report_is_black_on_white_and_not_endless(variant, visit):
    page = visit(variant, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(300)
    ink = "getComputedStyle(document.querySelector('.md-typeset h1')).color"
    assert page.evaluate(ink) == "rgb(0, 0, 0)"
    assert not page.locator(".md-header").is_visible()
    for selector in ("body", ".gd", ".gd .file"):
        ground = f"getComputedStyle(document.querySelector('{selector}')).backgroundColor"
        assert page.evaluate(ground) in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), selector
    shown = "[...document.querySelectorAll('.gd tr')].filter(row => row.offsetHeight).length"
    rows = page.evaluate(shown)
    pages = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(format="A4")))
    assert rows > 100
    # However large the difference is: beside five pages, one holds some 49 rows of it.
    assert 1 < pages < 5 + rows / 45, rows
