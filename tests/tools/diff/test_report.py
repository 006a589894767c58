"""Reports: well-formed, self-contained, escaped, the same bytes twice, readable in both themes."""

import difflib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.common.files import File
from tools.diff import buckets, data, html, hunks, markdown, style
from tools.diff.compare_trees import compare
from tools.diff.model import Header, Size
from tools.diff.read_trees import Source

VOID = {"meta", "col", "br", "link", "img", "hr", "input"}
EVIL = "<script>alert(1)</script><img src=x onerror=y>&\"'`|@team #1 ]( "
OLD = f"""# {EVIL}
import jax


class Attention:
    '''{EVIL}'''

    def __call__(self, x):
        return jax.nn.relu(x)  # {EVIL}


class MLP:
    width: int = 4

    def __call__(self, x):
        first = self.up(x)
        second = self.activation(first)
        third = self.down(second) + first
        return third
"""
NEW = (
    OLD.replace("relu(x)", "gelu(x)  # \u202egnihton\u200b\x07")
    .replace("= 4", f"= '{EVIL[:12]}'")
    .replace("\n\nclass Att", "\r\n\nclass Att")
)
HEADER = Header(EVIL, "new", "0123456789abcdef", EVIL, sizes=(Size("tiny", 10), Size(error=EVIL)))


def compared(old, new):
    return compare(source("experiments/grug/base", old), source("experiments/grug/new", new))


def source(name, files):
    return Source(name, {path: File(text.encode()) for path, text in files.items()})


@pytest.fixture(scope="module")
def comparison():
    many = "".join(f"line {n}\n" for n in range(60))
    old = {"model.py": OLD, f"{EVIL}/x.py": "a = 1\n", "long.txt": many, "gone.bin": "\0"}
    new = {"model.py": NEW, f"{EVIL}/x.py": "a = 2\n", "long.txt": many + "x" * 5000}
    return compared(old, new)


class Document(HTMLParser):
    """Fails on a tag that is not closed in order, an attribute given twice, or a bare `<`."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_well_formed_and_asks_for_nothing(comparison):
    text = html.page(comparison, HEADER)
    page = Document(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "form", "base", "svg"}
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not {"src", "srcset", "action"} & set(attributes)
    assert "url(" not in text and "@import" not in text and "//" not in style.STYLE
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_landmarks_and_headings(comparison):
    for write, first in ((html.page, 1), (html.fragment, 2)):
        page = Document(write(comparison, HEADER))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == first and levels.count(first) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels))
        names = [tag for tag, _ in page.tags]
        assert names.count("main") == (first == 1)
        assert "header" in names and "nav" in names
        labelled = [a["aria-labelledby"] for tag, a in page.tags if tag == "section"]
        assert labelled and all(name in page.ids for name in labelled)


def test_a_fragment_is_style_and_one_element(comparison):
    text = html.fragment(comparison, HEADER)
    assert not re.search(r"<(html|head|body|meta|title)\b", text)
    assert text.startswith("<style>") and text.rstrip().endswith("</div>")
    for selector in re.findall(r"(?:^|[}{])([^{}@]+)\{", style.STYLE):
        assert all(".gd" in part for part in selector.split(",")), selector


def test_every_changed_line_has_a_deep_link(comparison):
    page = Document(html.page(comparison, HEADER))
    changed = 0
    for at, file in enumerate(comparison.files):
        for row in file.rows:
            if row.kind != "same":
                changed += 1
                assert set(hunks.anchors(at, row)) <= set(page.ids)
    assert changed == 5


def numbers(text: str, file: int, side: str) -> list[int]:
    """The lines of a file that a report writes, from 1."""
    return [int(n) for n in re.findall(rf'id="f{file}{side}(\d+)"', text)]


def test_unchanged_lines_are_left_to_git():
    old = "".join(f"x{n} = {n}\n" for n in range(100))
    new = old.replace("x50 = 50", "x50 = 51").replace("x55 = 55", "x55 = 56").replace("x2 =", "y =")
    text = html.page(compared({"model.py": old}, {"model.py": new}), HEADER)
    written = [*range(1, 7), *range(48, 60)]
    assert numbers(text, 0, "L") == numbers(text, 0, "R") == written
    said = re.findall(r'<p class="was">(.*?)</p>', text)
    assert said == ["41 unchanged lines", "41 unchanged lines"]


def test_the_definition_of_a_change_is_written_and_linked():
    body = "".join(f"        x{n} = {n}\n" for n in range(40))
    old = f"class Block:\n    @jit\n    def __call__(self):\n{body}        return x39\n"
    result = compared({"model.py": old}, {"model.py": old.replace("return x39", "return x38")})
    text = html.page(result, HEADER)
    (link,) = re.findall(r'<li><a href="#(\w+)"><code>model.py</code></a> <code>Block', text)
    assert link == "f0R2" and numbers(text, 0, "R") == [1, 2, 3, *range(41, 45)]


def test_files_come_by_meaning_and_those_that_only_name_themselves_in_a_sentence():
    paths = ("BUILD conftest.py launch.py model.py plumbing/data.py planning/plan.py test_model.py "
             "train.py tests/x.py kernels.py").split()  # fmt: skip
    old = {path: "a = 1\n" for path in paths} | {"own.py": "import experiments.grug.base\n"}
    new = {path: "a = 2\n" for path in paths} | {"own.py": "import experiments.grug.new\n"}
    text = html.page(compared(old, new), HEADER)
    headings = re.findall(r'<h3 class="group">(.*?)</h3>', text)
    assert headings == ["Template", "Other files", "Tests", "Plumbing and planning"]
    files = re.findall(r'<details class="file" id="f\d+"( open)?><summary><h4><code>(.*?)<', text)
    assert [path for _, path in files] == [
        "model.py", "train.py", "launch.py", "BUILD", "kernels.py", "conftest.py", "test_model.py",
        "tests/x.py", "planning/plan.py", "plumbing/data.py",
    ]  # fmt: skip
    assert [path for is_open, path in files if is_open] == [path for _, path in files[:5]]
    tree = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall("<code>(.*?)</code>", tree) == [path for _, path in files]
    assert re.search(r"Differ in the variant's own name alone: <code id=\"f\d+\">own.py<", text)


def test_a_report_of_very_many_lines_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(hunks, "MAX_ROWS", 60)
    monkeypatch.setattr(hunks, "MAX_REPORT", 100)
    old = {path: "".join(f"x{n} = {n}\n" for n in range(80)) for path in ("a.py", "model.py")}
    new = {path: content.replace(" = ", " = 1 + ") for path, content in old.items()}
    text = html.page(compared(old, new), HEADER)
    assert numbers(text, 1, "R") == [*range(1, 61)] and numbers(text, 0, "R") == [*range(1, 41)]
    said = re.findall(r"(\d+) more changed lines are left out", text)
    assert said == ["20", "40"]
    page = Document(text)
    assert all(link[1:] in page.ids for link in page.links)


def test_a_very_long_line_is_cut_around_its_first_change():
    data = ", ".join(f"{n}" for n in range(100_000))
    old, new = f"[{data}]\n", f"[{data.replace(' 50000,', ' 50001,')}]\n"
    text = html.page(compared({"data.json": old}, {"data.json": new}), HEADER)
    assert len(text) < 60_000 and "<ins>50001</ins>" in text and " characters</span>" in text


def test_the_page_of_a_small_change_is_small():
    old = {
        f"{name}.py": f"# experiments.grug.{{}}\n{BODY}" for name in ("model", "train", "test_a")
    }
    base = {path: content.format("base") for path, content in old.items()}
    new = {path: content.format("new") for path, content in old.items()}
    new["model.py"] = new["model.py"].replace("value_70 =", "value_70 = 1 +")
    assert len(html.page(compared(base, new), HEADER)) < 25_000


BODY = "".join(f"value_{n} = compute(value_{n // 2}, {n}) if {n} else None\n" for n in range(500))


def test_sources_cannot_write_markup(comparison):
    text = html.page(comparison, HEADER)
    assert "<script" not in text and "<img" not in text
    assert "\u202e" not in text and "\u200b" not in text and "\x07" not in text
    for code in ("U+202E", "U+200B", "U+0007"):
        assert f'<span class="u">{code}</span>' in text
    assert "x" * 5000 in text  # long lines are there, whole


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_makes_a_well_formed_page(old, new):
    old, new = (text.encode("utf-8", "replace").decode() for text in (old, new))
    for path in ("a.py", "a.txt"):
        result = compared({path: old}, {path: new})
        Document(html.page(result, Header(old, new)))
        markdown.comment(result, Header(old, new))


def test_the_same_bytes_twice_with_and_without_a_cache(comparison, tmp_path):
    plain = html.page(comparison, HEADER)
    assert html.page(compared(*_trees()), HEADER) == html.page(compared(*_trees()), HEADER)
    assert html.page(comparison, HEADER, tmp_path) == plain
    entries = sorted(tmp_path.iterdir())
    assert entries
    assert html.page(comparison, HEADER, tmp_path) == plain
    assert sorted(tmp_path.iterdir()) == entries


def _trees():
    return {"model.py": OLD}, {"model.py": NEW}


@pytest.mark.parametrize(
    "entry", [b"", b"{}", b"[", b"\xff", b'[[0,99999,"k"]]', b'[[0,1,"k\\"><script>"]]', b"null"]
)
def test_a_damaged_cache_is_written_anew(entry, tmp_path):
    result = compared({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"})
    header = Header("a", "b")
    plain = html.page(result, header, tmp_path)
    good = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in good:
        path.write_bytes(entry)
    assert html.page(result, header, tmp_path) == plain
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == good


def luminance(colour):
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("pair", style.PAIRS, ids="-on-".join)
def test_contrast(theme, pair):
    light, dark = sorted((luminance(theme[name]) for name in pair), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_changes_are_told_by_signs_too():
    for sign in ('td.r::before {\n  content: "- "', 'td.a::before {\n  content: "+ "'):
        assert re.sub(r"\s+", "", sign) in re.sub(r"\s+", "", style.STYLE)


def test_not_larger_than_difflibs_by_much():
    old = BODY.splitlines(keepends=True)
    new = [line.replace("None", "0") if n % 30 == 0 else line for n, line in enumerate(old)]
    ours = html.page(compared({"a.py": "".join(old)}, {"a.py": "".join(new)}), Header("a", "b"))
    theirs = difflib.HtmlDiff().make_file(old, new, context=True, numlines=3)
    assert len(ours.encode()) <= 1.6 * len(theirs.encode())


def test_sizes_are_written_as_people_read_them():
    header = Header("base", "new", sizes=(Size("tiny", 1000, None, 8.26e6), Size("tiny", 1100, 5)))
    comparison = compared({}, {})
    page = html.page(comparison, header)
    for text in ("1,000", "1,100", "+10.0%", "8.26 MFLOP"):
        assert f">{text}</td>" in page and f"`{text}`" in markdown.comment(comparison, header)


def test_json(comparison):
    text = data.document(comparison, HEADER)
    answer = json.loads(text)
    assert answer["schema_version"] == 1
    assert answer["old"] == {"label": EVIL, "commit": "0123456789abcdef"}
    assert answer["added"] == comparison.counts.added
    assert [f["new_path"] for f in answer["files"]] == [f.new_path for f in comparison.files]
    assert answer["sizes"]["old"]["parameters"] == 10
    assert text == data.document(comparison, HEADER)


def test_markdown_makes_no_mention_link_or_markup(comparison):
    text = markdown.comment(comparison, HEADER)
    # What is left once code spans are taken out.
    bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.S)
    for sign in ("@", "#1", "](", "<", "script", "\u202e"):
        assert sign not in bare.replace("###", ""), sign
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows and all(line.endswith("|") for line in rows)


def test_a_note_on_a_path_is_no_markup_either():
    path = f"{EVIL.replace('/', '')}.py"
    comparison = compared({}, {path: "f(f_locals)\n"})
    assert len(comparison.notes) == 1
    text = markdown.comment(comparison, Header("base", "new"))
    assert "@team" in text and "@team" not in re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


@pytest.mark.parametrize("raw", ["a", "`", "``a`", "a|b", "", "\n", "a\u202eb"])
def test_code_spans(raw):
    span = markdown.span(raw)
    fence = span[: len(span) - len(span.lstrip("`"))]
    assert span.endswith(fence) and fence not in span[len(fence) : -len(fence)]
    assert "\n" not in span and "\u202e" not in span


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("", ""),
        ("MLP/activation", ""),
        ("loss kernel", "Touches MLP/activation, but the ledger declares loss kernel."),
    ],
)
def test_every_form_says_that_another_bucket_is_declared_than_is_touched(declared, said):
    old = "class MLP:\n    def __call__(self, x):\n        return relu(x)\n"
    known = {"model.py": buckets.Files("other", {"MLP": "MLP/activation"})}
    before, after = ({"model.py": old.replace("relu", name)} for name in ("relu", "silu"))
    comparison = compare(source("", before), source("", after), known)
    header = Header("base", "new", declared=declared)
    assert json.loads(data.document(comparison, header))["warning"] == said
    for text in (html.page(comparison, header), markdown.comment(comparison, header)):
        assert ("Warning" in text) == bool(said) and said in text


@pytest.mark.parametrize(
    ("files", "said"),
    [({}, None), ({"e": ""}, "1 file changed"), ({"e": "", "f": ""}, "2 files changed")],
)
def test_every_form_counts_the_files_that_no_line_tells(files, said):
    comparison, header = compared({}, files), Header("base", "new")
    assert json.loads(data.document(comparison, header))["files_as_whole"] == sorted(files)
    for text in (html.page(comparison, header), markdown.comment(comparison, header)):
        assert (f"{said} as a whole" in text) if said else ("as a whole" not in text)


@pytest.mark.parametrize(
    ("new", "own", "shown"),
    [
        ({"plumbing/data.py": "a = 1\n"}, 0, "base's"),
        ({"plumbing/data.py": "a = 2\n"}, 1, "1 file of its own"),
        ({"data.py": "a = 1\n", "planning/plan.py": "b = 1\n"}, 2, "2 files of its own"),
        ({"model.py": "a = 1\n"}, None, None),
    ],
)
def test_every_form_says_whose_the_plumbing_is(new, own, shown):
    comparison = compared({"plumbing/data.py": "a = 1\n"}, new)
    header = Header("base", "new")
    assert json.loads(data.document(comparison, header))["own_plumbing"] == own
    page = "".join(Document(html.page(comparison, header)).text)
    assert (f"plumbing: {shown}\n" in page) == (own is not None)
    assert (f"Plumbing: `{shown}`." in markdown.comment(comparison, header)) == (own is not None)
