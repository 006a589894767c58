"""The built site and a stand-alone report in a real browser.

Each page that a test opens is watched: a request that leaves this machine, an error on the console
and a script that throws fail the test, whatever else it looks at.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tools.common.files import File
from tools.diff import html
from tools.diff.buckets import Files
from tools.diff.compare_trees import Comparison, compare
from tools.diff.model import Header, Size
from tools.diff.read_trees import Source

WIDTHS = (1440, 768, 375)
SCHEMES = ("light", "dark")
# Where `./pants test` puts the site, and where `./pants package docs:site` does.
SITES = (Path("site"), Path("dist/site"))
_NAMES = {"Block": "block wiring/norm ordering", "MLP": "MLP/activation"}
BUCKETS = {"model.py": Files("launch/config", _NAMES)}
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A name that is asked for is not found, so that nothing leaves this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


def find_browser() -> str:
    """The path of Chromium; skips, or where a browser is required fails, if there is none."""
    named = os.environ.get("GRUG_CHROMIUM")
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/bin"
    result = shutil.which(named or "chromium", path=path)
    if result:
        return result
    message = f"no browser: {named or 'chromium'} is not on PATH; apt-get install --yes chromium"
    if named or os.environ.get("GRUG_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = find_browser()
    with sync_playwright() as playwright:
        # Playwright gives each launch an empty profile.
        running = playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def site() -> Path:
    named = os.environ.get("GRUG_SITE")
    for path in [Path(named)] if named else SITES:
        if (path / "index.html").exists():
            return path.resolve()
    pytest.fail(f"there is no {named or 'site'}: ./pants package docs:site")


@pytest.fixture(scope="session")
def mkdocs() -> list[str]:
    """The command of MkDocs with the packages of the docs."""
    named = os.environ.get("GRUG_MKDOCS")
    if named:
        return [named]
    program = Path("tests/site/mkdocs.pex").resolve()
    if not program.exists():
        pytest.fail("there is no MkDocs: name one that has nh3, too, with GRUG_MKDOCS")
    return [sys.executable, str(program)]


@pytest.fixture(scope="session")
def variant(site: Path) -> Path:
    """The page of the experiment with the largest diff: an untouched copy has an empty one."""
    pages = sorted(site.glob("reports/variants/*.html"), key=lambda page: page.stat().st_size)
    pages = [page for page in pages if '<details class="file"' in page.read_text("utf-8")]
    assert pages, "no experiment of the site has a diff"
    return pages[-1]


class SilentHandler(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    """The address of the site, served from the loopback device."""
    serve = functools.partial(SilentHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@dataclass
class Watch:
    """What pages asked for and complained of."""

    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        context.on("request", lambda request: self._requested(request.url))
        context.on("requestfailed", lambda request: self._failed(request.url, request.failure))
        context.on("response", lambda response: self._answered(response.url, response.status))
        context.on("console", lambda message: self._said(message.type, message.text))
        context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))

    def _requested(self, url: str) -> None:
        self.requests.append(url)
        if is_foreign(url):
            self.faults.append(f"asks another host: {url}")

    def _failed(self, url: str, failure: str | None) -> None:
        if failure != "net::ERR_ABORTED":  # a page that was left
            self.faults.append(f"{url}: {failure}")

    def _answered(self, url: str, status: int) -> None:
        if status >= 400:
            self.faults.append(f"{url}: {status}")

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(f"console: {text}")


def is_foreign(url: str) -> bool:
    parts = urlsplit(url)
    near = parts.scheme in ("http", "https") and parts.hostname == "127.0.0.1"
    return not near and parts.scheme not in ("file", "data", "blob", "about")


Visit = Callable[..., Page]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def visit(browser: Browser, watch: Watch) -> Iterator[Visit]:
    """Opens a path or an address: visit(where, anchor="", width=1440, scheme="light", ...)."""
    contexts: list[BrowserContext] = []

    def opened(
        where: Path | str, anchor: str = "", width: int = 1440, scheme: Any = "light", **more: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        contexts.append(context)
        watch.over(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        address = where.as_uri() if isinstance(where, Path) else where
        page.goto(f"{address}#{anchor}" if anchor else address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert watch.faults == []


@pytest.fixture(scope="session")
def axe() -> Callable[..., list[str]]:
    """What axe-core has against a page, by all rules or by some: a line for each violation."""
    source = resources.files(axe_playwright_python).joinpath("axe.min.js").read_text("utf-8")
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

    def violations(page: Page, rules: Sequence[str] = ()) -> list[str]:
        if not page.evaluate("'axe' in window"):
            page.evaluate(source)
        only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": tags}
        result = page.evaluate(
            # It need not read the style sheets, which from disk it may not.
            "only => axe.run({runOnly: only, resultTypes: ['violations'], preload: false})",
            only,
        )
        assert len(result["passes"]) > (0 if rules else 10)  # it did look
        return [
            f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]

    return violations


# -- a report with one of each -------------------------------------------------------------------


def _model(*, new: bool) -> str:
    """A file with a fold and a change of each kind."""
    moved = (
        "def rotate(x, angle):\n    first = x * angle\n    second = first + x\n    return second\n"
    )
    body = _MODEL.format(
        values="".join(f"    VALUE_{n} = {n}\n" for n in range(16)),
        rate="0.002" if new else "0.001",
        width="d_model" if new else "n_embd",
        call="project(\n            self.up,\n            self.down,\n        )"
        if new
        else "project(self.up, self.down)",
        order="self.mlp(self.norm(x))" if new else "self.norm(self.mlp(x))",
        long="W" * 400 if new else "w",
        act="gelu" if new else "relu",
        hidden="\u202e" if new else "",
    )
    return f"{body}\n\n{moved}" if new else f"{moved}\n\n{body}\n\n{_MOVED}"


_MOVED = "".join(f"setting_{n} = compute_setting({n})\n" for n in range(4))
_MODEL = """\
import dataclasses


class Table:
    '''Values that stay.'''

{values}

@dataclasses.dataclass
class Config:
    rate: float = {rate}
    {width}: int = 64


class Block:
    def __call__(self, x):
        size = self.config.{width} + x.{width}  # both of {width}
        out = {call}
        x = {order}
        return x + out, size, "{long}"


class MLP:
    def __call__(self, x):
        return {act}(x) * self.{width}  # {hidden}end
"""


def planted() -> Comparison:
    """Few lines with what a report can show: compared as an experiment and its copy."""
    same = "".join(f"line {n} of experiments.grug.{{}}\n" for n in range(12))
    own = "".join(f"number = {n}\n" for n in range(12)) + "# experiments.grug.{}\n"
    old = {
        "model.py": _model(new=False),
        "own.py": own.format("base"),
        "gone.py": "GONE = True\n",
        "test_model.py": "def test_rate():\n    assert Config().rate == 0.001\n",
        "a/path/of/many/directories/and_a_rather_long_name_for_one_file_indeed.txt": same,
        "ends.txt": "one\ntwo\n",
        "some.bin": "\0\1",
    }
    new = {
        "model.py": _model(new=True),
        "own.py": own.format("planted"),
        "test_model.py": "def test_rate():\n    assert Config().rate == 0.002\n",
        "extra.py": "def added(x: int) -> int:\n\treturn x + 1  # tab\n\n\n" + _MOVED,
        "a/path/of/many/directories/and_a_rather_long_name_for_one_file_indeed.txt": same + "end\n",
        "ends.txt": "one\r\ntwo\r\n",
        "some.bin": "\0\2",
    }
    return compare(_source("base", old), _source("planted", new), BUCKETS)


def _source(name: str, files: dict[str, str]) -> Source:
    tree = {path: File(text.encode()) for path, text in files.items()}
    return Source(f"experiments/grug/{name}", tree)


HEADER = Header(
    "base", "planted", "0123456789abcdef", sizes=(Size("tiny", 10, 10, 60.0), Size("tiny", 12))
)


@pytest.fixture(scope="session")
def fragment() -> str:
    return html.fragment(planted(), HEADER)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(html.page(planted(), HEADER), encoding="utf-8")
    return path
