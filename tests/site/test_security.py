"""What a pull request brings to the site runs nothing and covers nothing, in a real browser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tools.common.errors import ToolError
from tools.site import pages, refusals, splice

# Whatever runs says so on the window.
PAYLOADS = """\
<script>window.ran = "script"</script>
<img src="data:," onerror="window.ran = 'event'">
<details open ontoggle="window.ran = 'toggle'"><summary>more</summary>less</details>
<svg onload="window.ran = 'svg'"><script>window.ran = "svg script"</script>
<animate onbegin="window.ran = 'animate'" attributeName="x" dur="1s"/></svg>
<iframe srcdoc="<script>parent.ran = 'frame'</script>"></iframe>
<object data="data:text/html,<script>parent.ran = 'object'</script>"></object>
<math><mtext><table><mglyph><style><img src='data:,' onerror="window.ran = 'mutation'"></style>
</mglyph></table></mtext></math>
<video src="data:," onerror="window.ran = 'video'"></video>
<form action="javascript:window.ran = 'form'"><input autofocus onfocus="window.ran = 'focus'">
</form>
<base href="https://example.invalid/"><meta http-equiv="refresh" content="0;url=about:blank">
<link rel="stylesheet" href="https://example.invalid/x.css">
<style>.md-content { display: none } body { background: red !important }</style>
<div style="position: fixed; inset: 0; background: red; z-index: 99999">style covers</div>
<div class="md-search__overlay md-dialog" id="__config">class covers</div>
</article></main></div></body><script>window.ran = "broken out"</script>

Words in `code` and [a link](index.md).

[by Markdown](javascript:window.ran='link') <a href="&#106;avascript:window.ran='entity'">entity</a>

# Heading <img src='data:,' onerror="window.ran = 'heading'">
"""
TITLE = "<script>window.ran = 'title'</script><img src=data:, onerror=window.ran='title'>"
# What lies over the middle of the window, or under it in the background.
COVERS = """() => {
  const top = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
  return Boolean(top.closest(".md-content")) &&
    [...document.querySelectorAll(".md-content *")].every((e) =>
      !["fixed", "absolute", "sticky"].includes(getComputedStyle(e).position));
}"""


def build(mkdocs, root, url="", **docs):
    """The site of `docs`, a text by name, made as the workspace's own is, published at `url`."""
    tree, site = root / "tree", root / "tree/dist/site"
    shutil.copytree("docs/assets", tree / "docs/assets")
    for name, text in {"index": "# Home", **docs}.items():
        (tree / f"docs/{name}.md").write_text(text)
    config = Path("mkdocs.yml").read_text()
    (tree / "mkdocs.yml").write_text(config[: config.index("not_in_nav:")])
    (tree / "tools/site").mkdir(parents=True)
    for name in ("sanitise.py", "reserved.py", "tabs.py"):
        shutil.copy(f"tools/site/{name}", tree / "tools/site")
    command = [*mkdocs, "build", "--quiet", "--no-strict"]
    own = {"PYTHONPATH": ".", "PEX_EXTRA_SYS_PATH": ".", "GRUG_SITE_URL": url}
    subprocess.run(command, cwd=tree, env=os.environ | own, check=True)
    (root / "diffs").mkdir()
    splice.splice(site, root / "diffs")
    return site


@pytest.fixture(scope="module")
def hostile(mkdocs, tmp_path_factory):
    """A site with a page that tries everything, and one whose front matter does."""
    titled = f'---\ntitle: "{TITLE}"\ntemplate: gone.html\n---\n' + "Words.\n\n" * 30
    return build(mkdocs, tmp_path_factory.mktemp("hostile"), evil=PAYLOADS, titled=titled)


@pytest.mark.parametrize("name", ["evil", "titled"])
def test_nothing_that_a_page_brings_runs_or_covers(hostile, visit, name):
    page = visit(hostile / f"{name}.html")
    page.wait_for_timeout(300)
    for link in page.locator(".md-content a").all():
        if "index.html" not in (link.get_attribute("href") or ""):
            link.evaluate("a => a.click()")
    assert page.evaluate("window.ran") is None
    assert page.evaluate(COVERS)
    assert page.url.startswith(f"{(hostile / name).as_uri()}.html")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    bad = "script, style, iframe, object, embed, svg, form, input, video, base, link, meta, [style]"
    assert page.locator(f".md-content :is({bad})").count() == 0
    expect(page.get_by_text("Words").first).to_be_visible()


def test_what_is_harmless_stays(hostile, visit):
    page = visit(hostile / "evil.html")
    expect(page.locator(".md-content code", has_text="code")).to_be_visible()
    page.get_by_role("link", name="a link").click()
    expect(page.get_by_role("heading", name="Home")).to_be_visible()


def test_the_policy_alone_holds_what_got_through(hostile, visit, watch):
    """As if the sanitiser had missed it: in the page, after the policy."""
    page = hostile / "evil.html"
    through = page.with_name("through.html")
    through.write_text(page.read_text().replace("</article>", f"{PAYLOADS}</article>", 1))
    opened = visit(through)
    opened.wait_for_timeout(300)
    assert opened.evaluate("window.ran") is None
    forbidden, watch.faults[:] = list(watch.faults), []
    assert any("Content Security Policy" in fault for fault in forbidden)
    through.unlink()


def test_each_page_of_the_site_has_a_policy_that_it_meets(site, visit):
    """visit fails for a violation, which the console reports."""
    built = sorted(site.rglob("*.html"))
    for path in built:
        head = path.read_text("utf-8")[:2000]
        assert "Content-Security-Policy" in head and "unsafe" not in head, path
    for name in ("index.html", "reports/grug-archive.html", "benchmarks.html"):
        visit(site / name).wait_for_timeout(100)


def test_a_script_that_is_not_the_themes_stops_the_build(hostile, tmp_path):
    shutil.copytree(hostile, tmp_path / "site")
    page = tmp_path / "site/index.html"
    page.write_text(page.read_text().replace("</body>", "<script>window.ran = 1</script></body>"))
    (tmp_path / "diffs").mkdir()
    with pytest.raises(ToolError, match="index.html: holds a script that is not the theme's"):
        splice.splice(tmp_path / "site", tmp_path / "diffs")


@pytest.mark.parametrize(
    "name, text",
    [
        ("page.html", "<script>window.ran = 1</script>"),
        ("drawing.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"),
        ("drawing.svg", "<svg xmlns='http://www.w3.org/2000/svg' onload='1'></svg>"),
        ("drawing.svg", "<svg xmlns:x='http://www.w3.org/2000/svg'><x:script>1</x:script></svg>"),
        ("drawing.svg", "<!DOCTYPE svg [<!ENTITY x 'y'>]><svg/>"),
        ('a"onload="1.md', "# x"),
    ],
)
def test_files_that_would_be_pages_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ToolError, match=r"remove it|rename it|in Markdown"):
        refusals.refuse(tmp_path / name, f"docs/{name}")


def test_a_page_cannot_take_the_place_of_a_generated_one():
    for name in ("reports/grug-archive.md", "reports/variants/x.md", "speedrun/leaderboard.md"):
        assert pages.is_generated(name)
    for name in ("index.md", "speedrun/2026-11-22_x.md", "reports/variants/a/b.md"):
        assert not pages.is_generated(name)
