"""A built site: diffs in their places, and every link leads somewhere."""

import base64
import hashlib

import pytest

from tools.common.errors import ToolError
from tools.site import links, splice

PAGE = "<html><head><title>x</title></head><body>{}</body></html>"


@pytest.fixture
def site(tmp_path):
    """A site that waits for the diff of moe, and the diff."""
    built, diffs = tmp_path / "site", tmp_path / "diffs"
    (built / "reports/variants").mkdir(parents=True)
    diffs.mkdir()
    (built / "index.html").write_text(PAGE.format('<a href="reports/variants/moe.html">moe</a>'))
    (built / "reports/grug-archive.html").write_text(PAGE.format(""))
    place = '<h2 id="diff">Diff</h2><!-- grug:diff moe -->'
    (built / "reports/variants/moe.html").write_text(PAGE.format(place))
    (built / "reports/variants/base.html").write_text(PAGE.format(""))
    (diffs / "moe.html").write_text('<p id="one">\\1 \\g<0> é</p><a href="#one">one</a>')
    return tmp_path


def put(site):
    return splice.splice(site / "site", site / "diffs")


def page(site, name="moe.html"):
    return (site / "site/reports/variants" / name).read_text(encoding="utf-8")


def test_a_diff_is_put_in_once_and_nowhere_else(site, capsys):
    assert splice.main([str(site / "site"), str(site / "diffs")]) == 0
    assert '<h2 id="diff">Diff</h2><p id="one">\\1 \\g<0> é</p>' in page(site)
    assert "stylesheet" not in page(site)
    holds = [p.name for p in (site / "site").rglob("*.html") if 'id="one"' in p.read_text()]
    assert holds == ["moe.html"]
    assert links.check(site / "site") == []


def test_links_are_checked_with_the_diffs_in_their_places(site):
    command = [str(site / "site"), str(site / "diffs"), "--check-links"]
    (site / "diffs/moe.html").write_text('<a href="#two">two</a>')
    with pytest.raises(ToolError, match="moe.html:2: broken link: '#two'"):
        splice.main(command)


def test_a_style_is_stored_once(site):
    fragment = site / "diffs/moe.html"
    fragment.write_text("<style>\np{color:red}\n</style>\n<p>moe</p>")
    put(site)
    (sheet,) = (site / "site/assets").glob("*.css")
    assert sheet.read_text() == "p{color:red}\n" and "<style>" not in page(site)
    link = f'<link rel="stylesheet" href="../../assets/{sheet.name}">'
    assert link in page(site) and link not in page(site, "base.html")
    assert links.check(site / "site") == []


THEMES = "<script>__md_scope=new URL({},location)</script>"


def test_scripts_of_the_theme_alone_are_allowed(site):
    built = site / "site"
    (built / "404.html").write_text(PAGE.format(THEMES.format('"/"')))
    (built / "index.html").write_text(PAGE.format(THEMES.format('"../.."')))
    put(site)
    digest = hashlib.sha256(b'__md_scope=new URL("../..",location)').digest()
    home = (built / "index.html").read_text()
    assert f"script-src 'self' 'sha256-{base64.b64encode(digest).decode()}';" in home
    assert home.index("Content-Security-Policy") < home.index("<title>")
    assert "script-src 'self';" in page(site, "base.html")


@pytest.mark.parametrize(
    "body, message",
    [
        ("<script>alert(1)</script>", "base.html: holds a script that is not the theme's: 'alert"),
        ("<SCRIPT type=module>alert(1)</SCRIPT >", "holds a script that is not the theme's"),
        (THEMES.format('"..",alert(1),"x"'), "holds a script that is not the theme's"),
    ],
)
def test_other_scripts_stop_the_build(site, body, message):
    (site / "site/404.html").write_text(PAGE.format(THEMES.format('"/"')))
    (site / "site/reports/variants/base.html").write_text(PAGE.format(body))
    with pytest.raises(ToolError, match=message):
        put(site)
    assert "Content-Security-Policy" not in page(site)


def test_a_page_without_a_head_stops_the_build(site):
    (site / "site/bare.html").write_text("<p>bare</p>")
    with pytest.raises(ToolError, match="bare.html: has no <head> that a policy can stand in"):
        put(site)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("base", "<p>", "base.html: holds 0 places for its diff: build it again"),
        ("nobody", "<p>", "nobody.html: cannot be read: No such file"),
        ("Bad name", "<p>", "'Bad name' names no experiment"),
        ("moe", "<!DOCTYPE html><p>", "is a whole document: a fragment is needed"),
        ("moe", "<p>\n<body onload=x>", "is a whole document"),
        ("moe", None, "waits for the diff 'moe': there is no moe.html"),
    ],
)
def test_all_diffs_or_none(site, name, text, message):
    path = site / f"diffs/{name}.html"
    path.unlink(missing_ok=True)
    if text:
        path.write_text(text)
    before = page(site)
    with pytest.raises(ToolError, match=message.replace("(", r"\(")):
        put(site)
    assert page(site) == before and not (site / "site/assets").exists()


def test_a_diff_is_put_in_once(site):
    put(site)
    with pytest.raises(ToolError, match="holds 0 places"):
        put(site)


def faults(tmp_path, body, **more):
    (tmp_path / "index.html").write_text(PAGE.format(f"\n{body}"))
    for name, text in more.items():
        (tmp_path / name.replace("__", "/").replace("_", ".")).write_text(text)
    return links.check(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other.html">x</a> <a href="other.html#there">x</a> <a href="#">top</a>',
        '<a href="./">x</a> <a href="?q=1">x</a> <a href="index.html?q=1#here">x</a><p id=here>',
        "<a href=other.html>x</a><a href='other.html'>x</a><A HREF='other.html'>x</A>",
        '<a name="old"></a><a href="#old">x</a>',
        '<a href="https://example.org/">x</a><a href="mailto:a@example.org">x</a>',
        '<a href="other.html#a%20b">x</a><img src="data:image/png;base64,x">',
        '<!-- <a href="nowhere.html"> -->',
        '<script>"<a href=nowhere.html>"</script><style>/* <a href="nowhere.html"> */</style>',
        '<code>&lt;a href="nowhere.html"&gt;</code> href="nowhere.html"',
        '<p title="> <a href=nowhere.html>">x</p>',
        '<link rel="canonical" href="https://example.org/">',
        '<p data="nowhere">x</p>',
    ],
)
def test_links_that_lead_somewhere(tmp_path, body):
    assert faults(tmp_path, body, other_html='<p id="there"><p id="a b">') == []


@pytest.mark.parametrize(
    "body, message",
    [
        ('<a href="gone.html">x</a>', "broken link: 'gone.html': there is no gone.html"),
        ("<A HREF=gone.html>x</A>", "there is no gone.html"),
        ('<a href="../index.html">x</a>', "broken link: '../index.html': there is no ../index"),
        ('<a href="other.html#gone">x</a>', "broken link: 'other.html#gone': other.html has no #g"),
        ('<a href="#gone">x</a>', "broken link: '#gone': index.html has no #gone"),
        ('<a href="sub/">x</a>', "there is no sub/index.html"),
        ("<a\n href='gone.html'>x</a>", "there is no gone.html"),
        ('<a title=">" href="gone.html">x</a>', "there is no gone.html"),
        ('<img src="gone.png">', "there is no gone.png"),
        ('<img srcset="gone.png 2x">', "there is no gone.png"),
        ('<a href="/other.html">x</a>', "absolute link: '/other.html'"),
        ('<a href="javascript:alert(1)">x</a>', "no link that a page may have: 'javascript:"),
        ('<a href="&#106;avascript:alert(1)">x</a>', "no link that a page may have: 'javascript:"),
        ('<script src="https://example.org/x.js"></script>', "asks another host: 'https://exa"),
        ('<script src="gone.js"></script>', "there is no gone.js"),
        ('<img src="//example.org/x.png">', "asks another host: '//example.org/x.png'"),
        ('<link rel="stylesheet" href="http://example.org/x.css">', "asks another host"),
        ('<p style="background:url(https://example.org/x.png)">', "asks another host"),
        ('<svg><use xlink:href="https://example.org/x.svg#a"/></svg>', "asks another host"),
    ],
)
def test_links_that_do_not(tmp_path, body, message):
    (line,) = faults(tmp_path, body, other_html='<p id="there">')
    assert line.startswith("index.html:2: ") and message in line


def test_style_sheets_ask_no_one(tmp_path):
    sheet = "p{}\n@import 'https://example.org/x.css';\na{background:url(gone.png)}"
    assert faults(tmp_path, "", x_css=sheet) == [
        "x.css:2: asks another host: 'https://example.org/x.css'",
        "x.css:3: broken link: 'gone.png': there is no gone.png",
    ]


def test_the_404_page_may_be_shown_anywhere(tmp_path):
    (tmp_path / "index.html").write_text("")
    (tmp_path / "404.html").write_text('<a href="/index.html">x</a><a href="/gone.html">x</a>')
    (line,) = links.check(tmp_path)
    assert line == "404.html:1: broken link: '/gone.html': there is no gone.html"


def test_the_command(tmp_path, capsys):
    with pytest.raises(ToolError, match="holds no index.html: build the site first"):
        links.main([str(tmp_path)])
    faults(tmp_path, '<a href="gone.html">x</a><a href="away.html">y</a>')
    assert links.main([str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    (tmp_path / "gone.html").write_text("")
    (tmp_path / "away.html").write_text("")
    assert links.main([str(tmp_path)]) == 0
