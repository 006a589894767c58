"""The pages: what they tell, their bytes, and that no text gets out of hand."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.runs.conftest import entry
from tools.common.errors import ToolError
from tools.site import pages as command
from tools.site.markup import blocks, clip, heading, inline, slug, text
from tools.site.pages import INDEX, gather, render, write
from tools.site.svg import Node, Series, chart, in_order, lineage, ticks

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[x](javascript:alert(1))",
    "![x](http://evil.example/p.png)",
    "https://evil.example/\"onmouseover='alert(1)'",
    "<!-- grug:diff base --> and --> and </p></dl></td>",
    "\x02wzxhzdk:0\x03 \u202e reversed",
    "{: onclick=alert(1) } {data-x} ``` ~~~ &lt;b&gt; `<b>` `unclosed",
    "javascript:alert(1) data:text/html,x ftp://x/y",
]


OWN_SCRIPTS = "".join(
    f'<script defer src="{path}"></script>'
    for path in ("../assets/uplot/uPlot.iife.min.js", "compare.data.js", "../assets/compare.js")
)


def facts(workspace, *rows):
    path = workspace.root / "facts.json"
    path.write_text(json.dumps({"schema_version": 1, "variants": list(rows)}))
    return path


def fact(name, **values):
    return {
        "name": name,
        "path": f"experiments/grug/{name}",
        "origin": None,
        "status": "active",
        "bucket": None,
        "files": 3,
        "lines": 1234,
        "added": 20,
        "deleted": 5,
        "accelerators": ["cpu", "gpu"],
    } | values


def pages(workspace, *rows, diffs=(), dates=None):
    directory = workspace.root / "diffs"
    directory.mkdir(exist_ok=True)
    for name in diffs:
        (directory / f"{name}.html").write_text("<p>diff</p>")
    return dict(render(gather(workspace.root, facts(workspace, *rows), directory, dates)))


class Balanced(HTMLParser):
    """Fails on tags that do not close, and keeps what a browser would run or load."""

    VOID = ("br", "link", "wbr")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def parse(page):
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_a_branch_names_its_parent(workspace):
    parent = {"run": "<i>trunk", "step": 5, "digest": "d" * 64, "horizon": {"steps": 10}}
    workspace.write_summary("base", "base-1", run_schema=5, ancestors=[parent])
    page = pages(workspace, fact("base"))["reports/variants/base.md"]
    assert '<td data-label="Steps">100, from &lt;i&gt;trunk@5</td>' in page
    parse(page)


def test_a_variants_page(workspace):
    workspace.write_ledger(
        entry("base", bucket="template"),
        entry("moe", forked_at="0123abc", results="see `x`", issue="https://example.org/1.")
        + "\n### Notes\n\nSome notes.\n\nMore.\n",
        entry(
            "copy", origin="moe", status="superseded", superseded_by="base", last_known_good="a1"
        ),
    )
    page = pages(workspace, fact("base", added=None, deleted=None), fact("moe"))[
        "reports/variants/moe.md"
    ]
    assert page.startswith('---\ntitle: "moe"\n') and "\n# moe\n" in page
    for part in (
        'href="../grug-archive.html?status=active#experiments">active</a>',
        'href="../grug-archive.html?bucket=mlp-activation#experiments">MLP/activation</a>',
        'href="../compare.html?show=moe">Compare curves</a>',
        '<dd><a href="base.html">base</a> at <code>0123abc</code></dd>',
        "<dd>1,234 lines in 3 files</dd>",
        "<dd>+20 −5 lines</dd>",
        "<dd>cpu, gpu</dd>",
        '<dd><a href="copy.html">copy</a></dd>',
        "<p>see <code>x</code></p>",
        '<a href="https://example.org/1" rel="noopener nofollow">https://example.org/1</a>.',
        "<p>Some notes.</p><p>More.</p>",
        "No run is recorded.",
    ):
        assert part in page, part
    parse(page)


def test_runs_are_drawn_against_the_origin(workspace):
    for seed in range(3):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=2 + seed / 100)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=1 + seed**2 / 100)
    result = pages(workspace)
    page = result["reports/variants/moe.md"]
    forest, *drawings = SVG.findall(page)
    assert len(drawings) == 2  # against tokens and against time
    for drawing in drawings:
        assert drawing.count('class="grug-line origin"') == 1
        assert drawing.count('class="grug-line variant"') == 1
        assert drawing.count('class="grug-band') == 2
    assert "Dashed: base, 3 seeds. Solid: moe, 3 seeds." in page
    assert "<b>moe is better by 0.9933 bits per byte</b>" in page
    assert "paired t-test of 3 pairs of seeds" in page
    # The verdict comes first, with each pair's difference.
    assert page.index("Moe is better by") < page.index('grug-forest"') < page.index("## Runs")
    assert forest.count('class="grug-pair"') == 3 and forest.count('class="grug-diamond"') == 1
    assert "seed 1</text>" in forest and "−1.0000</text>" in forest
    assert '<a href="../runs/moe/moe-1.json">moe-1</a>' in page
    assert "1.017 ± 0.021<small>" in result[INDEX]
    base = result["reports/variants/base.md"]
    assert len(SVG.findall(base)) == 2 and "origin" not in SVG.findall(base)[0]
    parse(page), parse(base)


def test_the_index_says_how_sure_and_at_what_cost(workspace):
    for seed in range(3):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=2 + seed / 100)
        workspace.write_summary("moe", f"moe-{seed}", seed=seed, bpb=1 + seed**2 / 100)
    page = pages(workspace)[INDEX]
    row = page[page.index('<tr id="moe"') :]
    better = '<b class="grug-better">−0.9933 better</b>'
    assert f"{better}<small>−1.0220 to −0.9646, q &lt; 0.0001</small>" in row
    assert 'data-sort="-0.993333"' in row
    assert re.search(r"1\.017 ± 0\.021<small>\d+ steps, .* tokens, 3 seeds</small>", row)
    assert re.search(r'data-label="FLOPs" class="num" data-sort="1.000000">×1.000<', row)
    assert re.search(r'data-label="Cost" .*?<small>1 × cpu, [\d.]+ \w*FLOP</small>', row)


def test_values_after_other_budgets_stand_apart(workspace):
    """What sorts them keeps those together that compare: those with more tokens come first."""
    workspace.write_summary("base", "base-1", bpb=2.0)
    workspace.write_summary("moe", "moe-1", bpb=1.0, tokens=20_000)
    page = pages(workspace)[INDEX]
    keys = re.findall(r'data-label="Held out" class="num" data-sort="([\d.]+)"', page)
    base, moe = map(float, keys)
    assert moe < 1000 < base


def test_the_data_to_compare(workspace):
    for seed in range(2):
        workspace.write_summary("base", f"base-{seed}", seed=seed, bpb=2 + seed / 10)
    result = pages(workspace)
    data = json.loads(result["reports/compare.json"])
    (one,) = data["experiments"]
    assert one["name"] == "base" and one["seeds"] == 2 and one["curve"][-1][4] == 2.05
    assert data["columns"] == ["step", "tokens", "seconds", "flops", "bpb"]
    script = result["reports/compare.data.js"]
    assert json.loads(script.removeprefix("window.grugCompare=").rstrip(";\n")) == data
    head, first, *_ = result["reports/compare.csv"].splitlines()
    assert head == "experiment,origin,status,seeds,step,tokens,seconds,flops,bpb"
    assert first.startswith("base,none,active,2,")
    assert "No experiment has held-out values yet" not in result["reports/compare.md"]


def test_nothing_to_compare(workspace):
    result = pages(workspace)
    assert "No experiment has held-out values yet" in result["reports/compare.md"]
    assert json.loads(result["reports/compare.json"])["experiments"] == []


def test_one_seed_is_no_claim(workspace):
    workspace.write_summary("base", "base-1")
    workspace.write_summary("moe", "moe-1")
    assert pages(workspace)["reports/variants/moe.md"].count("<b>one seed: no claim</b>") == 3


def test_runs_without_an_origins(workspace):
    workspace.write_summary("moe", "moe-1")
    page = pages(workspace)["reports/variants/moe.md"]
    assert "No claim: no run of base" in page and page.count("<svg") == 2
    workspace.write_summary("base", "base-1", data_digest="f" * 64)
    page = pages(workspace)["reports/variants/moe.md"]
    assert re.search("No claim: no run of base.* is on the same data; record one", page)


def test_a_diff_has_its_place(workspace):
    gone = entry("gone", status="deleted", last_known_good="0123abc")
    workspace.write_ledger(entry("base"), entry("moe"), entry("new"), gone)
    result = pages(workspace, diffs=["moe", "stranger"])
    assert "\n\n<!-- grug:diff moe -->\n" in result["reports/variants/moe.md"]
    assert "Written from scratch" in result["reports/variants/base.md"]
    assert "None was made" in result["reports/variants/new.md"]
    assert "git show 0123abc:experiments/grug/gone" in result["reports/variants/gone.md"]
    assert not any("stranger" in page for page in result.values())


def test_both_distances(workspace):
    """What its author changed, and how far it is from an origin that went on."""
    forks = workspace.root / "forks.json"
    forks.write_text('{"experiments/grug/moe": {"added": 7, "deleted": 3}}')
    directory = workspace.root / "diffs"
    directory.mkdir()
    archive = gather(workspace.root, facts(workspace, fact("moe")), directory, forks=forks)
    page = dict(render(archive))["reports/variants/moe.md"]
    assert "<dt>Changed since the fork</dt><dd>+7 −3 lines</dd>" in page
    assert "<dt>Against base today</dt><dd>+20 −5 lines</dd>" in page
    forks.write_text('{"experiments/grug/moe": {"added": "7"}}')
    with pytest.raises(ToolError, match="forks.json:1: has a row without numbers of lines"):
        gather(workspace.root, facts(workspace), directory, forks=forks)


@pytest.mark.parametrize("written", ['{"moe": "today"}', '{"moe": 3}', "[]"])
def test_days_are_checked(workspace, written):
    days = workspace.root / "days.json"
    days.write_text(written)
    with pytest.raises(ToolError, match="days.json:1: is no object of days"):
        pages(workspace, dates=days)


def test_the_index(workspace):
    workspace.write_ledger(
        entry("base", bucket="template"),
        entry("moe"),
        entry("gone", origin="moe", status="deleted", last_known_good="0123abc"),
    )
    days = workspace.root / "days.json"
    days.write_text('{"moe": "2026-11-29"}')
    fast = fact("fast", path="experiments/speedrun/fast", status="speedrun")
    page = pages(workspace, fact("moe"), fact("new"), fast, dates=days)[INDEX]
    assert "2 active, 1 deleted" in page
    assert re.findall(r'<tr id="(\w+)"', page) == ["base", "moe", "gone"]  # as introduced
    assert '<td data-label="Changed" class="num" data-sort="25">+20 −5</td>' in page
    assert 'data-sort="20261129"><time>2026-11-29</time>' in page
    assert '<tr id="gone" data-status="deleted" data-bucket="mlp-activation">' in page
    assert "Not recorded yet: <code>experiments/grug/new</code></p>" in page
    parse(page)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(workspace, hostile):
    fields = ("purpose", "verdict", "issue", "results", "diff", "forked at", "introduced")
    workspace.write_ledger(
        entry("base"),
        entry("moe", **dict.fromkeys(fields, hostile))
        + f"\n### Notes\n\nNotes {hostile}\n\n{hostile}\n",
    )
    result = pages(
        workspace,
        fact("moe", accelerators=[hostile]),
        fact("x", path=hostile),
        diffs=["moe"],
    )
    line = "".join(filter(str.isprintable, hostile))  # others are refused
    kind = {"count": 1, "kind": line, "platform": line, "processes": 1}
    workspace.write_summary("base", "base-1", config={"steps": 100, "x": hostile})
    workspace.write_summary("moe", "moe-1", devices=kind, config={"steps": 100, "x": 1})
    made = [*result.items(), *pages(workspace, diffs=["moe"]).items()]
    for page in [page for path, page in made if path.endswith(".md")]:
        # The page that compares asks for its own.
        page = page.replace(OWN_SCRIPTS, "")
        parser = parse(page)
        assert not parser.tags & {"script", "img", "iframe", "object"}
        for key, value in parser.attributes:
            assert not key.startswith("on"), key
            if key == "href":
                assert re.match(r"https?://|\.\./|variants/|[\w.-]+\.(html|csv|json)", value), value
        assert page.count("<!--") <= 1  # its own place for a diff
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", page)


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_any_text_is_one_harmless_piece(value):
    for created in (text(value), inline(value)):
        parser = parse(created)
        assert parser.tags <= {"a", "code", "em", "strong"}
        assert not re.search(r"[\n\r\x00]", created)
    parser = parse(blocks(value))
    assert parser.tags <= {"a", "code", "em", "strong", "p", "ul", "ol", "li", "pre"}
    assert "\n" not in blocks(value)  # Markdown would end the block
    assert not re.search(r"(?<!\\)[#*\[\]`<>&|!]", heading(value).replace("\\\\", ""))


LINK = '<a href="https://a.example/b_c_d" rel="noopener nofollow">'


@pytest.mark.parametrize(
    "written, shown",
    [
        ("**a `b`** and *c*", "<strong>a <code>b</code></strong> and <em>c</em>"),
        ("_a_ but d_model and 2 * 3 * 4", "<em>a</em> but d_model and 2 * 3 * 4"),
        ("[`a`](https://a.example/b_c_d).", f"{LINK}<code>a</code></a>."),
        ("**https://a.example/b_c_d**", "<strong>https://a.example/b_c_d</strong>"),
        ("(https://a.example/b_c_d)", f"({LINK}https://a.example/b_c_d</a>)"),
        ("[a](javascript:b)", "[a](javascript:b)"),
        (r"2\*3 \[x\]", "2*3 [x]"),
        ("`**a**`", "<code>**a**</code>"),
    ],
)
def test_markdown_within_a_line(written, shown):
    assert inline(written) == shown
    parse(inline(written))


def test_markdown_of_notes():
    notes = (
        "#### Why\n\nOne\nline:\n- a\n  b\n- *c*\n\n1. d\n\n```py\nx = 1\n\n\ny = '<'\n```\nEnd."
    )
    assert blocks(notes) == (
        "<p><strong>Why</strong></p><p>One line:</p><ul><li>a b</li><li><em>c</em></li></ul>"
        "<ol><li>d</li></ol><pre><code>x = 1&#10;&#10;&#10;y = &#x27;&lt;&#x27;</code></pre>"
        "<p>End.</p>"
    )


def test_small_helpers():
    assert text("<a href=\"'&") == "&lt;a href=&quot;&#x27;&amp;"
    assert slug("block wiring/norm ordering") == "block-wiring-norm-ordering"
    assert clip("one two three", 9) == "one two…" and clip("short", 9) == "short"
    assert clip("x" * 20, 9) == "x" * 8 + "…"
    assert heading("2026-01-01_a_b") == r"2026\-01\-01\_a\_b"


# -- drawings ------------------------------------------------------------------------------------


def test_a_chart_is_well_formed_and_says_what_it_shows():
    line = [(float(x), 5 - x / 100) for x in range(1, 100)]
    series = [Series("b<", True, (line, line)), Series("a&b", False, (line,), ((50.0, 4.0),))]
    drawing = chart(series, name="c", title="<t>", desc='"d"', x="tokens & time", y="loss")
    root = ET.fromstring(drawing)
    names = [child.tag.partition("}")[2] for child in root]
    assert names[:2] == ["title", "desc"] and root[0].text == "<t>" and root[1].text == '"d"'
    assert root.get("role") == "img" and root.get("aria-labelledby") == "c-title c-desc"
    assert names.count("polyline") == 2 and names.count("polygon") == names.count("circle") == 1
    assert "nan" not in drawing and "inf" not in drawing


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.tuples(st.floats(0.1, 1e13), st.floats(-1e3, 1e3)), min_size=1, max_size=30),
    st.booleans(),
)
def test_any_curve_can_be_drawn(points, twice):
    line = sorted(dict(points).items())
    series = Series("x", False, (line, line) if twice else (line,), (line[-1],))
    drawing = chart([series], name="c", title="t", desc="d", x="x", y="y")
    ET.fromstring(drawing)
    assert "nan" not in drawing and "inf" not in drawing and len(drawing) < 20_000


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0, 1e12), st.floats(1e-6, 1e12), st.integers(2, 8))
def test_ticks_are_few_and_within(low, size, count):
    size = max(size, 1e-6 * low)  # else rounding alone decides
    high = low + size
    result = ticks(low, high, count)
    assert len(result) <= count + 1
    assert all(low - 1e-6 * size <= tick <= high + 1e-6 * size for tick in result)


def test_lineage_of_two_hundred():
    nodes = [Node("base", "none", "active", "template")]
    for i in range(200):
        origin = nodes[i * 7919 % len(nodes)].name
        status = ("active", "superseded", "deleted")[i % 3]
        nodes.append(Node(f"v{i}", origin, status, "loss kernel"))
    drawing = lineage(nodes, href="variants/{name}.html")
    root = ET.fromstring(drawing)
    links = [element for element in root if element.tag.endswith("}a")]
    assert len(links) == 201
    rows = [float(row) for row in re.findall(r'<text x="[\d.]+" y="(\d+)"', drawing)]
    assert len(rows) == 201
    assert all(after - before >= 20 for before, after in pairwise(rows))
    places = {link.get("href"): i for i, link in enumerate(links)}
    assert all(
        places[f"variants/{n.origin}.html"] < places[f"variants/{n.name}.html"] for n in nodes[1:]
    )
    assert len(drawing) < 120_000


def test_the_tree_keeps_the_ledgers_order():
    known = [("a", "none"), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "gone")]
    nodes = [Node(name, origin, "active", "template") for name, origin in known]
    result = [(depth, node.name) for depth, node in in_order(nodes)]
    assert result == [(0, "a"), (1, "b"), (2, "d"), (1, "c"), (0, "e")]


def test_a_long_chain_stays_narrow():
    nodes = [Node(f"v{i}", f"v{i - 1}", "active", "template") for i in range(200)]
    assert [depth for depth, _ in in_order(nodes)] == list(range(200))
    width = re.search(r'width="(\d+)"', lineage(nodes, href="{name}"))
    assert width and int(width[1]) < 1400


# -- the tree ------------------------------------------------------------------------------------


def tree(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in sorted(files)}


def test_the_tree_is_docs_and_pages_and_the_same_every_time(workspace, capsys):
    workspace.write_summary("base", "base-1")
    docs = workspace.root / "docs"
    (docs / "index.md").write_text("# grug\n")
    (docs / "BUILD").write_text("files()\n")
    (docs / ".hidden").write_text("")
    (workspace.root / "diffs").mkdir()
    given_facts = str(facts(workspace, fact("base")))
    trees = []
    for out in ("one", "two"):
        arguments = ["--root", str(workspace.root), "--out", str(workspace.root / out)]
        arguments += ["--facts", given_facts, "--diffs", str(workspace.root / "diffs")]
        assert command.main(arguments) == 0
        trees.append(tree(workspace.root / out))
    assert trees[0] == trees[1]
    assert list(trees[0]) == [
        "index.md",
        "reports/compare.csv",
        "reports/compare.data.js",
        "reports/compare.json",
        "reports/compare.md",
        "reports/grug-archive.md",
        "reports/runs/base/base-1.json",
        "reports/variants/base.md",
        "reports/variants/moe.md",
    ]
    assert b"- path:" not in trees[0][INDEX]  # the table in place of the list
    assert not any(str(workspace.root).encode() in data for data in trees[0].values())
    with pytest.raises(ToolError, match="two: is not empty: remove it, or give another --out"):
        command.main(arguments)


def test_a_page_takes_the_place_of_the_entry_s_file(workspace):
    text = workspace.ledger.read_text()
    head, *entries = text.split("## ")
    workspace.ledger.write_text(head)
    folder = workspace.root / "docs/reports/variants"
    folder.mkdir()
    for own in entries:
        (folder / f"{own.split()[0]}.md").write_text(f"# {own}")
    archive = gather(workspace.root, facts(workspace), workspace.root)
    out = workspace.root / "site"
    write(workspace.root, out, archive)
    assert {made.name for made in archive.entries} == {path.stem for path in folder.glob("*")}
    for made in archive.entries:
        page = (out / f"reports/variants/{made.name}.md").read_text()
        assert page.startswith("---\ntitle: ") and "- status:" not in page


def test_nothing_is_left_of_a_tree_that_failed(workspace):
    archive = gather(workspace.root, facts(workspace), workspace.root)
    (workspace.root / "docs/link").symlink_to("/etc")
    out = workspace.root / "site"
    with pytest.raises(ToolError, match="docs/link: is a symbolic link"):
        write(workspace.root, out, archive)
    assert not out.exists() and not list(workspace.root.glob(".*"))


@pytest.mark.parametrize(
    "value, message",
    [
        ({"schema_version": 2}, "schema_version is 2, not 1"),
        ([], "schema_version is None, not 1"),
        ({"schema_version": 1, "variants": [{"path": 1}]}, "a variant is malformed"),
        ({"schema_version": 1, "variants": [fact("x", lines="9")]}, "a variant is malformed"),
        ({"schema_version": 1, "variants": [fact("x", accelerators="cpu")]}, "is malformed"),
    ],
)
def test_facts_that_are_refused(workspace, value, message):
    path = workspace.root / "facts.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ToolError, match=re.escape(message)):
        gather(workspace.root, path, workspace.root)


def test_an_archive_that_is_not_true_makes_no_pages(workspace):
    workspace.write_summary("nobody", "nobody-1")
    workspace.write_summary("base", "base-1", steps=-1)
    with pytest.raises(ToolError) as raised:
        pages(workspace)
    assert len(str(raised.value).splitlines()) >= 2
    workspace.write_ledger(entry("base", bucket="x"))
    with pytest.raises(ToolError, match="unknown bucket 'x'"):
        pages(workspace)
