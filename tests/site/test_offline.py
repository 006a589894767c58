"""The site asks no one for anything, from disk and served, and its search works both ways."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.site.conftest import is_foreign

MAX_INDEX = 250 * 1024  # bytes


def test_no_page_asks_another_host(site, server, visit, watch):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert len(pages) > 10
    # 404.html names its parts from the root of a server.
    addresses = [(site / page).as_uri() for page in pages if page != "404.html"]
    addresses += [f"{server}/{page}" for page in pages if not page.startswith("reports/variants/")]
    page = visit(f"{server}/")
    for address in addresses:
        page.goto(address)
        assert page.title()
    assert sum(url.endswith(".css") for url in watch.requests) > 10  # they were seen


@pytest.mark.parametrize("served", [False, True], ids=["disk", "served"])
def test_search_finds_an_experiment(site, server, variant, visit, watch, served):
    name = variant.stem
    page = visit(f"{server}/index.html" if served else site / "index.html")
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type(name)
    result = page.locator(f".md-search-result__link[href*='variants/{name}.html']").first
    expect(result).to_be_visible()
    expect(page.locator(".md-search-result__meta")).to_contain_text("matching document")
    result.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(name))
    assert not [url for url in watch.requests if is_foreign(url)]


def test_the_index_of_the_search_is_small_and_holds_no_diff(site, variant):
    for name in ("search_index.json", "search_index.js"):
        assert (site / "search" / name).stat().st_size < MAX_INDEX
    index = json.loads((site / "search/search_index.json").read_text())
    own = [
        doc
        for doc in index["docs"]
        if doc["location"].startswith(f"reports/variants/{variant.stem}.")
    ]
    assert own and sum(len(doc["text"]) for doc in own) < 20_000


def test_a_request_elsewhere_is_seen(browser, watch):
    """What the other tests trust in."""
    context = browser.new_context()
    watch.over(context)
    page = context.new_page()
    page.set_content('<img src="http://example.invalid/x.png"><script>undefined.x</script>')
    page.wait_for_load_state()
    context.close()
    assert any("asks another host" in fault for fault in watch.faults)
    assert any("script: " in fault for fault in watch.faults)
