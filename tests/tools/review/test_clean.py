"""Reports pass as they are; of hostile text, nothing but words and code is left.

What a text means is judged by markdown-it, which follows CommonMark and GitHub's tables.
"""

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.tools.review.conftest import COMMIT
from tools.diff import markdown, sizes
from tools.diff.compare_trees import compare
from tools.diff.markdown import span
from tools.diff.model import Header
from tools.diff.read_trees import read
from tools.review import post
from tools.review.artifact import Reports
from tools.review.clean import clean

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
KINDS = {
    "heading",
    "paragraph",
    "blockquote",
    "bullet_list",
    "ordered_list",
    "list_item",
    "hr",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "strong",
    "em",
    "inline",
    "text",
    "softbreak",
    "code_inline",
}
# What GitHub makes links, mentions, references, mathematics and images of outside of code.
MEANS = re.compile(
    r"[@#<>\[\]!&$~_\\`\t]|://|www\.|:[a-z0-9+]|[a-z]-\d|\b[0-9a-f]{7,40}\b", re.IGNORECASE
)


def tokens(text):
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def assert_harmless(text):
    for token in tokens(text):
        kind = token.type.removesuffix("_open").removesuffix("_close")
        assert kind in KINDS, f"{token.type} in {text!r}"
        if token.type == "text":
            assert not MEANS.search(token.content), f"{token.content!r} in {text!r}"


def assert_says(text, *words):
    """Something was left: it is shown as code."""
    code = "".join(token.content for token in tokens(text) if token.type == "code_inline")
    assert all(word in code for word in words), text


def workspace(tmp_path, name, files):
    directory = tmp_path / name
    directory.mkdir(parents=True)
    for path, content in files.items():
        (directory / path).write_text(content)
    return str(directory)


def report(old, new, **more):
    header = Header("base", "moe", "0123456789ab" * 3, "fedcba987654" * 3, **more)
    return markdown.comment(compare(read(old), read(new)), header)


@pytest.fixture
def reports(tmp_path):
    """All that a report can hold: knobs, buckets, sizes, long tables, odd names and text."""
    lines = [f"knob_{at} = {at}" for at in range(40)]
    old = workspace(tmp_path, "old", {"model.py": "\n".join([*lines, "a = '|'", "def f(): 1"])})
    odd = ["a = '@user #1 <b> | `x` \\\\| \\\\\\\\ ![i](http://x)'", "b = '\u202e'", "def g(): 2"]
    new = workspace(
        tmp_path,
        "new",
        {
            "model.py": "\n".join([line.replace("= ", "= 1") for line in lines] + odd),
            "a|b`c.md": "text\r\n",
            "_under_score_.py": "def h(): pass",
        },
    )
    one = sizes.Size(preset="tiny", parameters=1_234_567, flops_per_token=1.5e7)
    broken = sizes.Size(error="ValueError: <bad> @user")
    return [
        report(old, new, sizes=(one, one)),
        report(old, new, sizes=(one, broken), origin_found=True),
        report(new, old),
        report(old, old),
    ]


def test_reports_pass_byte_for_byte(reports):
    for text in reports:
        kept = [line for line in text.split("\n") if "\\\\|" not in line]
        if len(kept) == text.count("\n") + 1:
            assert clean(text) == text
        assert_harmless(clean(text))
        assert clean(clean(text)) == clean(text)


def test_the_report_of_a_real_variant_passes_byte_for_byte():
    root = Path(__file__).parents[3]
    text = report(str(root / "tools/diff"), str(root / "tools/ledger"))
    assert "| knob | origin | variant |" in text and clean(text) == text


def test_reports_that_pants_printed_one_after_the_other_pass(reports):
    together = "\n".join(text.rstrip("\n") for text in reports[2:]) + "\n"
    assert clean(together) == "\n".join(reports[2:])


HOSTILE = [
    "<script>alert(1)</script>",
    "<!-- hidden -->",
    "<details><summary>x</summary>",
    "<img src=x onerror=y>",
    "![image](https://evil.example/x.png)",
    "[link](https://evil.example)",
    "[ref]\n\n[ref]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example",
    "see www.evil.example now",
    "**Www.evil.example**",
    "hello @octocat",
    "**@lab/team** look",
    "> @octocat",
    "- @octocat",
    "### @octocat",
    "Fixes #1",
    "lab/grug#1 and GH-1 and gh-1",
    "0123456789abcdef",
    ":+1: :octocat:",
    "$x^2$ $`y`$",
    "&#64;octocat &lt;b&gt;",
    "\\@octocat \\<b>",
    "# huge",
    "```\n@octocat\n```",
    "~~~\n@octocat\n~~~",
    "    @indented",
    "`open @octocat",
    "``open` @octocat",
    "`a`` @octocat `",
    "`a`@octocat`b`",
    "\\`@octocat\\`",
    "`a\\`@octocat`",
    "`a\nb` @octocat `c",
    "| a |\n| --- |\n| `x | @octocat` |",
    "| a | b |\n| --- | --- |\n| `x \\\\| @octocat` | b |",
    "| a | b |\n| --- | --- |\n| `x | @octocat | y` |",
    "`a | @octocat`\n| --- | --- |",
    "| `a | @octocat` |\n| --- | --- |",
    "`a | @octocat | b`\n--- | --- | ---",
    "| a |\n| --- |\n<b>@octocat</b>",
    "| a |\n| --- |\n`x | @octocat`",
    "``@octocat```b`",
    "| a |\n| <b>@octocat |",
    "- a\n<b>\n- `c`",
    "- a\n\n      <b>",
    "> a\n<b>",
    "> [!CAUTION]\n> @octocat",
    "a\r<b>@octocat",
    "`a\r`<b>@octocat",
    "`a\r",
    "a\x0b<b>",
    "a\u2028@octocat",
    "a\x00<b>",
    "text\n===",
    "- [ ] task",
    "[^1]: note",
    "\u202e@octocat",
    "\ufeff# x",
    "`\u200b`@octocat",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_code(text):
    created = clean(text)
    assert_harmless(created)
    if "octocat" in text:
        assert_says(created, "octocat")


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n| --- | --- |\n| `x \\\\| y` | b |",
        "| a |\n| --- | --- |\n| b |",
        "| a |\n| --- |\n| b | c |",
    ],
)
def test_tables_that_parsers_may_read_otherwise_are_no_tables(text):
    assert not any(token.type == "table_open" for token in tokens(clean(text)))


PIECES = [*"`|\\@#<>[]()!*_-: \n\r\t$&~1a", "``", "```", "\\|", "| --- |", "| --- | --- |\n"]
PIECES += ["\n| ", " |\n", "### ", "- ", "> ", "<b>", "http://", "www.a", "GH-1", "@you", "\n\n"]
PIECES += ["**", "é", "\u202e", "\x0b", "    ", "&#64;", "](x)", "`a|b`", "`c`", " | "]


@settings(max_examples=1500)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join) | st.text(max_size=60))
@example("`|\n| --- | --- |\n")
@example("\\|\n| --- |")
def test_anything_is_harmless(text):
    created = clean(text)
    assert_harmless(created)
    assert clean(created) == created


@settings(max_examples=500)
@given(st.lists(st.lists(st.text(max_size=12), min_size=2, max_size=2), min_size=1, max_size=3))
def test_any_names_and_values_in_a_table_are_harmless(rows):
    table = markdown._table(("a", "b"), [[span(cell) for cell in row] for row in rows])
    assert_harmless(clean(table + "\n"))


def test_a_comment_holds_our_own_link_alone():
    reports = Reports(("moe",), "\n\n".join(HOSTILE))
    body = post.compose(reports, COMMIT, "https://github.com/lab/grug/actions/runs/1/artifacts/2")
    marker, _, rest = body.partition("\n")
    links = [token.attrs["href"] for token in tokens(rest) if token.type == "link_open"]
    assert links == ["https://github.com/lab/grug/actions/runs/1/artifacts/2"]
    assert marker == post.MARKER and post.MARKER not in rest
    kinds = {token.type for token in tokens(rest)}
    assert not kinds & {"html_block", "html_inline", "image", "fence", "code_block"}


def test_time_grows_with_length_alone():
    for text in ("`" * 300_000, "`a``" * 100_000, "| a " * 100_000, "**" * 200_000 + "<"):
        assert_harmless(clean(text)[:0])
        assert len(clean(text)) >= len(text)
