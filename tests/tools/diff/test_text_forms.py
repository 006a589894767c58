"""What is read of a tree, and what texts other than plain Python mean, byte by byte."""

import io
import json
import tokenize
from encodings.aliases import aliases

import pytest

from tools.common.files import File
from tools.diff import read_trees
from tools.diff.compare_trees import compare
from tools.diff.model import beyond_lines
from tools.diff.read_trees import Source
from tools.diff.spelling import not_python
from tools.diff.text import split


def substantive(path, old, new):
    """The number of substantive lines of a file, its notes, and whether any file counts whole."""
    origin, copy = (
        Source(name, {path: File(content if isinstance(content, bytes) else content.encode())})
        for name, content in (("experiments/grug/base", old), ("experiments/grug/copy", new))
    )
    result = compare(origin, copy)
    (file,) = result.files
    count = result.substantive.added + result.substantive.deleted
    return count, file.notes, beyond_lines(result)


# -- encodings --------------------------------------------------------------------------------

HIDDEN = [
    ("utf-7", "+AAo    b = 2"),
    ("unicode_escape", "\\n    b = 2"),
    ("raw_unicode_escape", "\\u000a    b = 2"),
    ("shift_jis", "b = 2"),
    ("big5", "b = 2"),
    ("cp037", "b = 2"),
    ("cp932", "b = 2"),
    ("rot13", "b = 2"),
    ("no-such-encoding", "b = 2"),
    ("utf-16", "b = 2"),
]


@pytest.mark.parametrize(("name", "hidden"), HIDDEN)
def test_a_source_in_an_encoding_that_hides_code_is_compared_as_text(name, hidden):
    def source(text, layout):
        return f"# coding: {name}\ndef f():\n    a = {layout}\n    # {text}\n    return a\n"

    old, new = source(f"note {hidden}", "(1)"), source(f"note {hidden}", "1")
    count, notes, _ = substantive("a.py", old, new)
    assert count == 2
    assert any(name in note and "compared as text" in note for note in notes)


@pytest.mark.parametrize(
    "source",
    [
        b"# coding: utf-8\nx = 1\n",
        b"# coding: utf8\nx = 1\n",
        b"# coding: utf-8-sig\nx = 1\n",
        b"# coding: ascii\nx = 1\n",
        b"# coding: latin-1\nx = '\xe4'\n",
        b"#!/bin/py\n# -*- coding: cp1252 -*-\nx = '\x80'\n",
        b"\n# vim: set fileencoding=koi8-r :\nx = '\xc1'\n",
        b"x = 1\n# coding: utf-7\n",
        b"\n\n# coding: utf-7\nx = 1\n",
        b"\x0c# coding=mac-roman\nx = 1\n",
        b"",
        b"\xef\xbb\xbf# coding: utf-8\nx = 1\n",
    ],
)
def test_what_python_reads_is_read_as_python(source):
    tokenize.detect_encoding(io.BytesIO(source).readline)
    compile(source, "a.py", "exec")
    assert not_python(split(source)) == ""


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbf# coding: latin-1\nx = 1\n",
        b"# coding: no-such-encoding\nx = 1\n",
        b"# coding: cp1252\nx = '\x81'\n",
    ],
)
def test_what_python_refuses_is_not_read_as_python(source):
    with pytest.raises(SyntaxError):
        compile(source, "a.py", "exec")
    assert not_python(split(source))


def test_known_encodings_have_one_byte_for_each_character():
    """So that lines, split before they are decoded, are those that Python sees."""
    names = {name for name in set(aliases.values()) if not not_python([f"# coding: {name}\n"])}
    assert {"utf_8", "latin_1", "iso8859_15", "cp1252", "koi8_r", "mac_roman"} < names
    for name in names - {"utf_8"}:
        assert bytes(range(128)).decode(name) == bytes(range(128)).decode("ascii")
        pairs = bytes(byte for a in range(256) for b in range(256) for byte in (a, b))
        assert len(pairs.decode(name, "replace")) == len(pairs)


# -- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("a.json", '{"v": 1.10}', '{"v": 1.1 }'),
        ("a.json", '{"v": 1e999}', '{"v": Infinity }'),
        ("a.json", '{"v": NaN}', '{"v": -NaN }'),
        ("a.json", '{"v": 1.5}', '{"v": "1.5" }'),
        ("a.json", '{"v": 0.1}', '{"v": 0.1000000000000000055 }'),
        ("a.json", '{"v": 1}', '{"v": 1.0 }'),
        ("a.json", '{"v": -0}', '{"v": 0 }'),
        ("a.json", b'{"v": "\xff"}', b'{"v": "\\udcff" }'),
        ("a.toml", "v = 1.10\n", "v = 1.1 \n"),
        ("a.toml", "v = nan\n", "v = -nan \n"),
        ("a.toml", "v = 1e999\n", "v =  inf\n"),
        ("a.toml", 'v = "1.5"\n', "v = 1.5 \n"),
        ("a.toml", "v = 07:32:00.1234567\n", "v = 07:32:00.1234568 \n"),
        ("a.toml", 'v = """a\nb"""\n', 'v =  """a\r\nb"""\n'),
    ],
)
def test_values_that_are_written_otherwise_count(path, old, new):
    assert substantive(path, old, new)[0] > 0


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("a.json", '{"v": [1.10, 2, NaN]}', '{"v": [1.10,\n2, NaN]}'),
        ("a.toml", "v = [1.10, 2, nan]\n", "v = [1.10,\n  2, nan]\n"),
        ("a.toml", "v = 1\n", "v = 1\r\n"),
    ],
)
def test_values_in_another_layout_do_not_count(path, old, new):
    assert substantive(path, old, new)[0] == 0


# -- comments ---------------------------------------------------------------------------------

OBEYED = """\
def f(a, b):
    import first{0}
    import second{1}
    return g({2}a, b)
"""


@pytest.mark.parametrize("comment", ["# pants: no-infer-dep", "# type: ignore", "# noqa"])
def test_a_comment_that_goes_to_another_statement_counts(comment):
    old = OBEYED.format(f"  {comment}", "", "")
    assert substantive("a.py", old, OBEYED.format("", f"  {comment}", "\n        "))[0] > 0
    assert substantive("a.py", old, OBEYED.format(f"\n    {comment}", "", "\n        "))[0] > 0
    assert substantive("a.py", old, OBEYED.format(f"  {comment}", "", "\n        "))[0] == 0


def test_a_comment_between_the_same_statements_may_stand_by_another_layout():
    old = "def f(a):\n    # why\n    x = g(a, [1, 2])  # noqa\n    return (x)\n"
    new = "def f(a):\n    # why\n    x = g(\n        a,\n        [1, 2],\n    )  # noqa\n"
    new += "    return x\n"
    assert substantive("a.py", old, new)[0] == 0
    twice = "def f(a):\n    x = g(a,{0} a, {1}\n          a)\n    return {2}\n"
    old, new = twice.format("", "", "(x)"), twice.format("", "# noqa", "x")
    assert substantive("a.py", old, new)[0] > 0


# -- notebooks --------------------------------------------------------------------------------


def notebook(*cells, **more):
    """A notebook; `more` replaces its top-level entries."""
    metadata = {
        "kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"},
        "language_info": {"name": "python", "version": "3.12"},
    }
    whole = {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps({**whole, **more}, indent=1)


def cell(source, kind="code", **more):
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


PLAIN = notebook(cell("x = 1"), cell("y = 2"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PLAIN, notebook(cell("x = 1\n%% code\ny = 2"))),
        (
            notebook(cell("a\n%% raw"), cell("b")),
            notebook(cell("a"), cell("%% code\nb", "raw")),
        ),
        (notebook(cell("\\%% code\n")), notebook(cell("%% code\n"))),
        (notebook(cell("%%writefile a\nb")), notebook(cell("%%writefile a\nb\n"))),
        (PLAIN, notebook(cell("x = 1"), cell("y = 2"), nbformat=3)),
        (PLAIN, notebook(cell("x = 1"), cell("y = 2"), nbformat_minor=4)),
        (PLAIN, notebook(cell("x = 1"), cell("y = 2"), other=1)),
        (PLAIN, notebook(cell("x = 1"), cell("y = 2", other=1))),
        (
            notebook(cell("x", attachments={"a.png": {"image/png": "AAAA"}})),
            notebook(cell("x", attachments={"a.png": {"image/png": "BBBB"}})),
        ),
        (
            notebook(cell("x", metadata={"attachments": ["a"]})),
            notebook(cell("x", attachments=["a"])),
        ),
        (PLAIN, PLAIN.replace('"language": "python"', '"language": "julia"')),
        (PLAIN, PLAIN.replace('"name": "python",', '"name": "julia",')),
        (PLAIN, PLAIN.replace('"kernelspec"', '"jupytext": {"formats": "py"}, "kernelspec"')),
        (PLAIN, PLAIN.replace('"source": "x = 1"', '"source": "z = 1", "source": "x = 1"')),
    ],
)
def test_what_a_notebook_says_counts(old, new):
    assert old != new
    assert substantive("a.ipynb", old, new)[0] > 0


@pytest.mark.parametrize(
    "new",
    [
        PLAIN.replace("3.12", "3.13"),
        PLAIN.replace("Python 3", "Python (mine)"),
        PLAIN.replace('"kernelspec"', '"widgets": {"a": 1}, "kernelspec"'),
        notebook(cell("x = 1", id="a", execution_count=3, outputs=[1]), cell("y = 2")),
        notebook(cell("x = 1", metadata={"collapsed": True, "scrolled": True}), cell("y = 2")),
        notebook(cell(["x =", " 1"]), cell("y = 2")),
    ],
)
def test_what_a_run_or_a_viewer_leaves_in_a_notebook_does_not_count(new):
    assert new != PLAIN
    assert substantive("a.ipynb", PLAIN, new)[0] == 0


# -- prose ------------------------------------------------------------------------------------

WRAPPED = ("one two\nthree four five\n", "one two three\nfour five\n")


@pytest.mark.parametrize(
    "around",
    ["{}", "# Title\n\n{}", "text\n{}", "{}\n- a\n", "```sh\na\n```\n\n{}", "---\na: b\n---\n\n{}"],
)
def test_a_paragraph_may_be_wrapped(around):
    assert substantive("a.md", *(around.format(text) for text in WRAPPED))[0] == 0


@pytest.mark.parametrize(
    "around",
    [
        "---\n{}---\n",
        "\ufeff---\n{}---\n",
        "---\n{}",
        "title: a\n{}",
        "- a\n{}",
        "1. a\n{}",
        "> a\n{}",
        "```\n{}```\n",
        "~~~\n```\n{}~~~\n",
        "- ```\n  a\n  ```\n\n```\n\n{}\n```\n",
        "    ```\n\n```\n\n{}\n```\n",
        "```\na\n    ```\n\n{}\n```\n",
        "<div>\n```\n</div>\n\n```\n{}```\n",
        "<div>\n{}</div>\n",
        "<pre>\n\n{}\n</pre>\n",
        "a <!-- b\n\n{}",
        "{}===\n",
        "{}---\n",
        "{}: meaning\n",
        "{}\n:   meaning\n",
        "!!! note\n{}",
        "[a]: b\n{}",
        "a | b\n{}",
        "$$\n{}$$\n",
        "\\begin\n{}",
    ],
)
def test_what_is_no_paragraph_may_not_be_wrapped(around):
    assert substantive("a.md", *(around.format(text) for text in WRAPPED))[0] > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("one two three\n", "one two  \nthree\n"),
        ("one two three\n", "one two\\\nthree\n"),
        ("one\ntwo\n", "one  \ntwo\n"),
        ("one  \ntwo\n", "one\ntwo\n"),
        ("one 1. two\n", "one\n1. two\n"),
        ("one - two\n", "one\n- two\n"),
        ("one\n\ntwo three\n", "one\ntwo three\n"),
        ("one two\n\nthree\n", "one\n\ntwo three\n"),
        ("one two three\n", "one two\n    three\n"),
        ("one two\nthree\n", "    one two\n    three\n"),
        ("- a\n\none two\nthree\n", "- a\n\n  one two three\n"),
        ("one `a  b`\ntwo\n", "one\n`a b` two\n"),
        ("one `a  b` c\ntwo\n", "one `a b`\nc two\n"),
        ("one two\n", "one\u00a0\ntwo\n"),
        ("one\n", "one\u00a0\n"),
        ("\u4e2d\u6587 \u5b57\n", "\u4e2d\u6587\n\u5b57\n"),
        ("one two three\n", "one\rtwo\nthree\n"),
    ],
)
def test_a_line_break_that_readers_see_counts(old, new):
    assert substantive("a.md", old, new)[0] > 0


def test_other_texts_are_no_prose():
    assert substantive("a.rst", *WRAPPED)[0] > 0
    assert substantive("a.md", "one\ntwo\n", "one \ntwo\n")[0] == 0
    assert substantive("a.md", "one\n\ntwo\n", "one\r\n\r\ntwo\r\n")[0] == 0


# -- trees ------------------------------------------------------------------------------------

# PEP 552: a magic number, then flags: 0 is a time stamp, 1 a hash that is never checked, 3 one
# that is.
STAMPED, UNCHECKED, CHECKED = (b"\xf3\r\r\n" + bytes([n, 0, 0, 0]) + b"x" * 8 for n in (0, 1, 3))


@pytest.mark.parametrize(
    ("path", "content", "is_read"),
    [
        ("__pycache__/model.cpython-313.pyc", STAMPED, False),
        ("__pycache__/model.cpython-313.opt-1.pyc", CHECKED, False),
        ("__pycache__/model.cpython-313.pyc", UNCHECKED, True),
        ("__pycache__/gone.cpython-313.pyc", STAMPED, True),
        ("__pycache__/model.py", b"", True),
        ("sub/__pycache__/model.cpython-313.pyc", STAMPED, True),
        ("__pycache__/sub/model.cpython-313.pyc", STAMPED, True),
        ("model/__init__.pyc", STAMPED, True),
        ("other.pyc", STAMPED, True),
        (".hypothesis/a", b"", False),
        ("sub/.pytest_cache/a", b"", False),
        (".ruff_cache/a", b"", False),
        (".git/config", b"", False),
        (".git", b"gitdir: x", False),
        ("pytest_cache/a", b"", True),
    ],
)
def test_what_a_directory_is_read_without(tmp_path, path, content, is_read):
    (tmp_path / "model.py").write_bytes(b"x = 1\n")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(content)
    assert set(read_trees.read_path(tmp_path)) == {"model.py"} | ({path} if is_read else set())


@pytest.mark.parametrize(
    ("path", "source"),
    [("model/__init__.pyc", "model.py"), ("sub/__init__.so", "sub/__init__.py")],
)
def test_bytecode_that_is_imported_in_place_of_a_source_is_told(path, source):
    old = {"model.py": File(b"x = 1\n"), "sub/__init__.py": File(b"x = 1\n")}
    result = compare(Source("a", old), Source("b", {**old, path: File(STAMPED)}))
    assert result.notes == (f"{path} hides {source}: `import` reads the former",)
    assert beyond_lines(result)
    beside = {**old, "model/__init__.txt": File(b"x"), "model.pyc": File(STAMPED)}
    assert compare(Source("a", old), Source("b", beside)).notes == ()
