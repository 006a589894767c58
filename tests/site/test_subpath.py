"""A site published below a path: its sitemap, its addresses and its page for lost readers."""

import functools
import re
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.site.conftest import SilentHandler
from tests.site.test_security import build
from tools.site import links

URL = "https://example.org/some/place/"


class Below(SilentHandler):
    """Serves the site below the path, and its 404 page for what is not there, as hosts do."""

    def send_error(self, code, message=None, explain=None):
        body = Path(self.directory, "404.html").read_bytes()
        self.send_response(200 if code == 404 else code)  # the watch takes a 404 for a fault
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def translate_path(self, path):
        prefix = urlsplit(URL).path
        inside = path.removeprefix(prefix) if path.startswith(prefix) else "-"
        return super().translate_path(f"/{inside}")


@pytest.fixture(scope="module")
def published(mkdocs, tmp_path_factory):
    return build(mkdocs, tmp_path_factory.mktemp("published"), url=URL, other="# Other\n\nWords.")


@pytest.fixture
def address(published):
    serve = functools.partial(Below, directory=str(published))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}{urlsplit(URL).path}"
        running.shutdown()


def test_the_sitemap_and_the_pages_name_the_address(published):
    found = re.findall("<loc>(.*?)</loc>", (published / "sitemap.xml").read_text())
    assert found == [f"{URL}index.html", f"{URL}other.html"] or found == [URL, f"{URL}other.html"]
    page = (published / "other.html").read_text()
    assert f'<link rel="canonical" href="{URL}other.html">' in page
    assert links.check(published, URL) == []
    assert links.check(published) != []


def test_the_page_for_lost_readers_finds_its_parts(address, visit):
    page = visit(f"{address}deep/below/nowhere.html")
    expect(page.get_by_role("heading", name="404")).to_be_visible()
    ground = "getComputedStyle(document.querySelector('.md-header')).backgroundColor"
    assert page.evaluate(ground) == "rgb(36, 41, 47)"
    page.locator(".md-logo").first.click()
    expect(page.get_by_role("heading", name="Home")).to_be_visible()


def test_without_an_address_there_is_no_sitemap(site):
    assert not (site / "sitemap.xml").exists() and not (site / "sitemap.xml.gz").exists()
    assert "canonical" not in (site / "index.html").read_text()
