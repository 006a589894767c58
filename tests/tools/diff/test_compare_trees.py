"""Pairs with planted truth: what the comparison must say of each, and must not."""

import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.common.files import File
from tools.diff import buckets, words
from tools.diff.compare_trees import MAX_STEPS, compare
from tools.diff.histogram import Budget, Counts, count
from tools.diff.model import KINDS, beyond_lines
from tools.diff.read_trees import Source

OLD, NEW = "experiments/grug/base", "experiments/grug/copy"

MODEL = '''
import jax

WIDTH = 64


class Attention:
    """Looks back."""

    def __call__(self, x, mask):
        scores = self.project(x) @ self.keys(x)
        return softmax(scores + mask) @ self.values(x)


class MLP:
    """Two matrices."""

    def __call__(self, x):
        hidden = jax.nn.relu(self.up(x))
        return self.down(hidden)


class Block:
    """Norm, attention, norm, MLP."""

    def __call__(self, x, mask):
        x = x + self.attn(self.attn_norm(x), mask)
        return x + self.mlp(self.mlp_norm(x))


def loss(logits, targets):
    picked = logits[targets]
    return logsumexp(logits) - picked


def make_optimizer(cfg):
    schedule = cosine(cfg.learning_rate)
    return adamw(schedule, cfg.weight_decay)
'''
KNOWN = {
    "model.py": buckets.Files(
        "block wiring/norm ordering",
        {
            "Attention": "attention/masking",
            "MLP": "MLP/activation",
            "Block": "block wiring/norm ordering",
            "loss": "loss kernel",
            "make_optimizer": "optimizer/training loop",
            "WIDTH": "launch/config",
        },
    )
}


def tree(files, name=NEW):
    contents = {
        path: content if isinstance(content, File) else File(_bytes(content))
        for path, content in files.items()
    }
    return Source(name, contents)


def _bytes(content):
    return content if isinstance(content, bytes) else content.encode()


def compared(old, new, **options):
    """Of single files or of trees."""
    old, new = (x if isinstance(x, dict) else {"model.py": x} for x in (old, new))
    return compare(tree(old, OLD), tree(new), KNOWN, **options)


def lines(comparison):
    """How many lines became what, over all files: new + old."""
    result = {}
    for kind in KINDS:
        counts = sum((file.lines(kind) for file in comparison.files), Counts(0, 0))
        if kind != "same" and counts != Counts(0, 0):
            result[kind] = (counts.added, counts.deleted)
    return result


def edit(old, *replacements):
    for before, after in replacements:
        assert before in old
        old = old.replace(before, after)
    return old


# -- change buckets ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before, after, bucket, name",
    [
        ("scores + mask", "scores * mask", "attention/masking", "Attention.__call__"),
        ("self.down(hidden)", "self.down(2 * hidden)", "MLP/activation", "MLP.__call__"),
        ("x + self.mlp(", "x - self.mlp(", "block wiring/norm ordering", "Block.__call__"),
        ("- picked", "+ picked", "loss kernel", "loss"),
        ("adamw(", "lion(", "optimizer/training loop", "make_optimizer"),
        ("WIDTH = 64", "WIDTH = 128", "launch/config", "WIDTH"),
    ],
)
def test_each_bucket(before, after, bucket, name):
    result = compared(MODEL, edit(MODEL, (before, after)))
    assert [(c.name, c.how, c.bucket, c.decided) for c in result.changes] == [
        (name, "changed", bucket, "map")
    ]
    assert result.buckets == (bucket,)
    assert result.substantive == Counts(1, 1)


def test_an_added_definition_is_guessed_by_its_name_or_by_its_users():
    new = MODEL + "\n\nclass ExpertMLP:\n    x = helper()\n\n\ndef helper():\n    return 1\n"
    result = {c.name: (c.bucket, c.decided) for c in compared(MODEL, new).changes}
    assert result == {
        "ExpertMLP": ("MLP/activation", "guess"),
        "helper": ("MLP/activation", "guess"),
    }


def test_a_docstring_or_an_added_import_is_no_change_of_what_is_computed():
    new = edit(MODEL, ("Looks back.", "Looks far back."), ("import jax", "import jax\nimport os"))
    result = compared(MODEL, new)
    assert {(c.name, c.how) for c in result.changes} == {
        ("Attention", "docs"),
        ("<imports>", "imports"),
    }
    assert result.buckets == ()


def test_an_import_from_elsewhere_under_the_same_name_counts():
    old = "from jax.nn import relu as act\n" + MODEL
    result = compared(old, edit(old, ("relu as", "gelu as")))
    assert [(c.name, c.how) for c in result.changes] == [("<imports>", "changed")]


def test_knobs_and_call_order():
    old = MODEL + (
        "\n\nclass Config:\n    d_ff: int = 512\n\n"
        'PRESETS = {"tiny": Config(d_ff=64, model=Model(heads=2))}\n\n'
        "def train(cfg, *, steps=10): pass\n"
    )
    added = "\n\nclass Another:\n    size: int = 3\n"
    new = edit(
        old,
        ("d_ff: int = 512", "d_ff: int = 256\n    top_k: int = 2"),
        ("heads=2", "heads=4"),
        ("steps=10", "steps=20"),
        ("x + self.attn(self.attn_norm(x), mask)", "self.attn_norm(x + self.attn(x, mask))"),
    )
    result = compared(old, new + added)
    assert {(k.name, k.old, k.new) for k in result.knobs} == {
        ("Config.d_ff", "512", "256"),
        ("Config.top_k", None, "2"),
        ("PRESETS['tiny'].model.heads", "2", "4"),
        ("train(steps)", "10", "20"),
    }
    (calls,) = result.calls
    assert calls.old == ("attn_norm", "attn", "mlp_norm", "mlp")
    assert calls.new == ("attn", "attn_norm", "mlp_norm", "mlp")


def test_a_knob_with_a_role_is_its_default():
    old = (
        MODEL + '\n\nclass Config:\n    mesh: tuple = role("cadence", (1, -1))\n    seed: int = 0\n'
    )
    new = edit(old, ("(1, -1)", "(2, -1)"), ("seed: int = 0", 'seed: int = role("replicate", 0)'))
    assert {(k.name, k.old, k.new) for k in compared(old, new).knobs} == {
        ("Config.mesh", "(1, -1)", "(2, -1)"),
        ("Config.seed.role", None, "'replicate'"),
    }


# -- renames ----------------------------------------------------------------------------------

NAMED = textwrap.dedent("""
    def attend(n_embd, key):
        width = n_embd // 2
        check(n_embd, width)
        other = n_embd + 1
        return width, key, other
    """)


def test_a_consistent_rename_is_no_change():
    result = compared(NAMED, NAMED.replace("n_embd", "d_model"))
    assert result.renames == (("n_embd", "d_model"),)
    # Callers may name the parameter: its declaration has changed.
    assert lines(result) == {"rename": (3, 3), "changed": (1, 1)}
    assert [(c.name, c.how) for c in result.changes] == [("attend", "changed")]


def test_a_variable_that_is_renamed_is_no_change():
    old = edit(NAMED, ("(n_embd, key):", "(key):\n    n_embd = key.width"))
    result = compared(old, old.replace("n_embd", "d_model"))
    assert result.renames == (("n_embd", "d_model"),)
    assert lines(result) == {"rename": (4, 4)} and result.changes == ()


def test_a_rename_of_one_function_leaves_the_others_alone():
    other = "\n\ndef keep(n_embd, d_model):\n    return n_embd\n"
    result = compared(NAMED + other, NAMED.replace("n_embd", "d_model") + other)
    assert lines(result) == {"rename": (3, 3), "changed": (1, 1)}


@pytest.mark.parametrize(
    "old, new",
    [
        # A library's function is replaced by another one.
        ("a = nn.relu(x)\nb = nn.relu(y)\nc = nn.relu(z)\n",) * 2,
        # The old name stays in use.
        (NAMED, edit(NAMED, ("check(n_embd, width)", "check(d_model, width)"))),
        # Two names become one: they meant different things.
        (NAMED.replace("key", "d_model"), NAMED.replace("key", "d_model")),
    ],
    ids=["not its own name", "still in use", "taken"],
)
def test_false_renames(old, new):
    if old == new:
        new = new.replace("relu", "gelu").replace("n_embd", "d_model")
        new = new.replace("d_model, d_model)", "d_model, more)")
    result = compared(old, new)
    assert result.renames == ()
    assert result.substantive.added >= 1


def test_a_rename_seen_twice_is_proven_like_any_other():
    old = "def f(x):\n    aa = x\n    return aa\n"
    result = compared(old, old.replace("aa", "bb"))
    assert result.renames == (("aa", "bb"),) and result.substantive == Counts(0, 0)


# -- moves ------------------------------------------------------------------------------------

BLOCK = (
    "def rotate(x, angles):\n    left, right = split(x)\n"
    "    turned = left * cos(angles) - right * sin(angles)\n    return join(turned)\n"
)


def test_a_block_that_moved_to_another_file_is_linked_both_ways():
    rest = "\n\ndef other():\n    return 1\n"
    result = compared({"a.py": BLOCK + rest, "b.py": rest}, {"a.py": rest, "b.py": rest + BLOCK})
    moved = [(at, row) for at, file in enumerate(result.files) for row in file.rows]
    went = [(at, r.old, r.link) for at, r in moved if r.link and r.old is not None]
    came = [(at, r.new, r.link) for at, r in moved if r.link and r.new is not None]
    assert [(at, line) for at, line, _ in went] == [link for *_, link in came]
    assert len(went) == len(came) == 4
    # Others can no longer import it from where it was: its first line is a change.
    assert lines(result) == {"moved": (3, 3), "changed": (1, 1)}
    assert all("in another file" in file.notes[0] for file in result.files)
    assert [(c.path, c.name, c.how, c.old_name) for c in result.changes] == [
        ("b.py", "rotate", "moved", "a.py: rotate")
    ]
    assert result.buckets == ()


@pytest.mark.parametrize(
    "block, moves",
    [
        ("first = compute_first(1)\nsecond = compute_second(2)\n", False),  # two lines
        ("ab = 1\nbc = 2\ncd = 3\nde = 4\n", False),  # 16 characters
        ("first = compute(1)\nsecond = compute(2)\nthird = compute(3)\n", True),
    ],
)
def test_short_blocks_are_not_moves(block, moves):
    old = {"a.md": block + "x = 1\n", "b.md": "y = 1\n"}
    result = compared(old, {"a.md": "x = 1\n", "b.md": block + "y = 1\n"})
    assert any(row.link for file in result.files for row in file.rows) == moves


def test_statements_that_moved_are_a_change_of_order():
    block = "first = compute(1)\nsecond = compute(2)\nthird = compute(3)\n"
    rest = "".join(f"x{n} = use({n}, 'something else')\n" for n in range(5))
    (file,) = compared(block + rest, rest + block).files
    assert any("order:" in note for note in file.notes)
    assert file.lines("changed") == Counts(3, 3)
    assert all(row.link for row in file.rows if row.kind == "changed")


@pytest.mark.parametrize(
    ("between", "substantive"),
    [
        ("def other(x):\n    return first(x)\n", 0),  # calls it later
        ("class Other:\n    size: int = 3\n\n    def f(self):\n        return first(self)\n", 0),
        ("import other\n", 1),  # may import this module in turn
        ("table = other(3)\n", 1),  # may look it up by its name
        ("def other(x=size):\n    return x\n", 0),
        ("def other(x: jax.Array):\n    return x\n", 0),
        ("size = 3\n", 1),
        ("'A text.'\n", 1),
        ("class Other(Base):\n    size: int = 3\n", 1),
        ("table = first(3)\n", 1),
        ("def other(x):\n    return first(x)\n\n\ntable = other(3)\n", 1),
        ("@wrap(first)\ndef other(x):\n    return x\n", 1),
        ("class Other:\n    size = first\n", 1),
        ("def other(x=first):\n    return x\n", 1),
        ("from other import *\n", 1),
        ("size = globals()\n", 1),
    ],
)
def test_a_function_moves_past_what_cannot_see_it(between, substantive):
    function = "def first(x):\n    doubled = 2 * x + 1\n    return doubled / (doubled - x)\n"
    # Longer than the function, so that it is the function that is shown as moved.
    between += "".join(f"\n\ndef padding_{n}(x):\n    return {n}\n" for n in range(5))
    result = compared(f"{function}\n\n{between}", f"{between}\n\n{function}")
    counts = result.substantive
    assert (counts.added > 0) == (counts.deleted > 0) == substantive
    assert any("order:" in note for note in result.files[0].notes) == substantive
    assert result.counts.added > substantive


def test_an_edited_class_that_moved_is_not_shredded():
    """It is matched by its name: one changed line, and a note where it stood."""
    start, end = MODEL.index("class Attention"), MODEL.index("class MLP")
    attention = MODEL[start:end]
    at = MODEL.index("def loss")
    new = MODEL[:start] + MODEL[end:at] + attention.replace("+ mask", "* mask") + MODEL[at:]
    result = compared(MODEL, new)
    assert result.substantive == Counts(1, 1)
    (file,) = result.files
    (row,) = [row for row in file.rows if row.kind == "changed"]
    assert "+ mask" in file.old[row.old] and "* mask" in file.new[row.new]
    names = [(marker.name, marker.arrived) for marker in file.markers]
    assert sorted(names) == [("Attention", False), ("Attention", True)]
    assert [c.name for c in result.changes] == ["Attention.__call__"]


# -- layout -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new",
    [
        ("f(a, b)\n", "f(\n    a,\n    b,\n)\n"),
        ("f(a)\n", "f(\n    a,\n)\n"),
        ("x = 'a'\n", 'x = "a"\n'),
        ("x = f'a{b}'\n", 'x = f"a{b}"\n'),
        ("x = (1 +\n     2)\n", "x = (1\n     + 2)\n"),
        ("x = (a)\ndef f():\n    return (a)\n", "x = (a)\ndef f():\n    return a\n"),
        ("a = 1\nb = 2\n", "a = 1\n\n\nb = 2\n"),
        ("a = 1 \n", "a = 1\n"),
    ],
)
def test_layout_alone_is_no_change(old, new):
    result = compared(old, new)
    assert result.substantive == Counts(0, 0), lines(result)
    assert result.counts != Counts(0, 0)


@pytest.mark.parametrize(
    "old, new",
    [
        ("x = (a,)\n", "x = (a)\n"),
        ("x = y[a,]\n", "x = y[a]\n"),
        ("x = 'a b'\n", "x = 'ab'\n"),
        ("x = '\"'\n", 'x = "\'"\n'),
        (
            "def f():\n    for x in y:\n        g()\n        h()\n",
            "def f():\n    for x in y:\n        g()\n    h()\n",
        ),
        ('x = """\n  a\n"""\n', 'x = """\n a\n"""\n'),
        ("notx = 1\n", "not x == 1\n"),
        ("x = 1  # why\n", "x = 1  # how\n"),
    ],
)
def test_what_looks_like_layout_and_is_not(old, new):
    assert compared(old, new).substantive.added > 0


def test_prose_and_data():
    old = {"a.md": "one two\nthree\n", "b.json": '{"a": 1, "b": 2}\n', "c.md": "one\n"}
    new = {"a.md": "one\ntwo three\n", "b.json": '{\n "a": 1,\n "b": 2\n}\n', "c.md": "two\n"}
    result = compared(old, new)
    assert [f.lines("changed") for f in result.files] == [Counts(0, 0), Counts(0, 0), Counts(1, 1)]


# -- bytes ------------------------------------------------------------------------------------


def only_file(old, new):
    (file,) = compared({"a.txt": old}, {"a.txt": new}).files
    return file


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"a\nb\n", b"a\r\nb\r\n", "differs in line endings only"),
        (b"a\nb\n", b"\xef\xbb\xbfa\nb\n", "byte order mark added"),
        (b"a\nb\n", b"a\nb", "newline at the end removed"),
        (b"a\nb\n", b"a \nb\t\n", "differs in trailing whitespace only"),
        (b"a \n", b"a\t\n", "differs in trailing whitespace only"),
        (b"ab\n", "a\u200bb\n".encode(), "hidden characters added: U+200B"),
        (b"ab\n", "a\u202eb\n".encode(), "differs in hidden characters only"),
        (b"\xff\n", b"\xfe\n", "bytes that are not UTF-8 added: \\xfe"),
        (b"a\0b", b"a\0c", "binary, 3 bytes"),
        (b"", b"a\n", ""),
    ],
)
def test_what_cannot_be_seen_is_said(old, new, message):
    file = only_file(old, new)
    assert file.status == "changed"
    assert any(message in note for note in file.notes) or not message


@pytest.mark.parametrize(
    "path, substantive", [("a.py", 0), ("a.md", 2), ("a.json", 0), ("a.sh", 2), ("prompts.txt", 2)]
)
def test_line_endings_count_as_git_counts_them_and_where_a_program_sees_them(path, substantive):
    (file,) = compared({path: b"[1,\n2]\n"}, {path: b"[1,\r\n2]\r\n"}).files
    assert file.counts == Counts(2, 2)
    assert file.lines("changed") == Counts(substantive, substantive)


@pytest.mark.parametrize("path, substantive", [("a.py", 0), ("a.md", 0), ("a.sh", 1), ("a.yml", 1)])
def test_blanks_at_the_end_of_a_line_are_layout_where_no_program_sees_them(path, substantive):
    (file,) = compared({path: "a(1)\n"}, {path: "a(1) \n"}).files
    assert file.lines("changed") == Counts(substantive, substantive)


@pytest.mark.parametrize(
    "around, line, substantive",
    [
        ("{}", "one two\nthree", 0),
        ("> {}", "one two\nthree", 1),
        ("```\n{}\n```\n", "one two\nthree", 1),
        ("~~~sh\n```\n{}\n~~~\n", "one two\nthree", 1),
        ("```\n```\n\n{}\n", "one two\nthree", 0),
        ("text\n\n    {}\n", "one two\n    three", 1),
        ("1. a\n\n\t{}\n", "one two\n\tthree", 1),
        ("{}\n", "| a | b |\n|---|---|", 1),
        ("```\n{}\n```\n", "one two \nthree", 1),
    ],
)
def test_prose_may_be_wrapped_where_readers_do_not_see_it(around, line, substantive):
    other = " ".join(line.split())
    old, new = around.format(line), around.format(other)
    result = compared({"README.md": old}, {"README.md": new})
    assert (result.substantive != Counts(0, 0)) == bool(substantive)


def test_invalid_bytes_are_substantive():
    assert only_file(b"\xff\n", b"\xfe\n").lines("changed") == Counts(1, 1)


def test_links_modes_huge_and_empty_files():
    old = {"a": File(b"x"), "b": File(b"x"), "c": b"y" * (2**21 + 1), "e": b""}
    new = {
        "a": File(b"x", "link"),
        "b": File(b"x", "executable"),
        "c": b"z" * (2**21 + 1),
        "f": b"",
    }
    result = {file.path: file for file in compared(old, new).files}
    assert "mode: file before, link now" in result["a"].notes
    assert "mode: file before, executable now" in result["b"].notes
    assert any("too large" in note for note in result["c"].notes) and not result["c"].rows
    assert (result["e"].status, result["f"].status) == ("removed", "added")
    assert all(result[name].status == "changed" for name in "abc")
    assert all(file.as_whole for file in result.values())


MANY = "".join(f"line {n}\n" for n in range(20))


@pytest.mark.parametrize(
    "old, new",
    [
        ({}, {"model/__init__.py": b""}),
        ({"py.typed": b""}, {}),
        ({"a.bin": b"\0a"}, {"a.bin": b"\0b"}),
        ({}, {"model.cpython-313-x86_64-linux-gnu.so": b"\x7fELF\0"}),
        ({"a": b"y" * (2**21 + 1)}, {"a": b"z" * (2**21 + 1)}),
        ({"a": File(b"b", "link")}, {"a": File(b"c", "link")}),
        ({"a": File(b"b")}, {"a": File(b"b", "link")}),
        ({"run.sh": File(b"b\n")}, {"run.sh": File(b"b\n", "executable")}),
        ({"a": File(b"1" * 40, "submodule")}, {"a": File(b"2" * 40, "submodule")}),
        ({"model.py": MANY}, {"models.py": MANY}),
        ({"a.bin": b"\0a"}, {"b.bin": b"\0a"}),
    ],
)
def test_a_change_that_no_line_tells_is_counted_by_files(old, new):
    result = compared({"kept.py": b"x = 1\n"} | old, {"kept.py": b"x = 1\n"} | new)
    assert result.substantive == Counts(0, 0) and len(result.as_whole) == 1
    assert "1 file changed as a whole" in beyond_lines(result)


def test_what_lines_tell_is_not_counted_by_files():
    old = {"a.py": b"x = 1\n", "b.py": b"y = 1\n", "c.bin": b"\0", "d.txt": b""}
    result = compared(old, old | {"a.py": b"x = 2\n", "e.py": b"z = 1\n", "d.txt": b"d\n"})
    assert result.substantive == Counts(3, 1)
    assert result.as_whole == () and beyond_lines(result) == ""


@pytest.mark.parametrize(
    "path", ["model/__init__.py", "model.so", "model.cpython-313-x86_64-linux-gnu.so"]
)
def test_what_is_imported_in_place_of_a_source_is_told(path):
    old = {"model.py": "x = 1\n", "__init__.py": "", "other/train.py": "x = 1\n"}
    result = compared(old, old | {path: b""})
    assert result.notes == (f"{path} hides model.py: `import` reads the former",)
    assert compared(old | {path: b""}, old | {path: b""}).notes == ()
    assert compared(old, old | {"models/__init__.py": b""}).notes == ()


def test_broken_python_is_compared_as_text():
    (file,) = compared("def f(:\n", "def g(:\n").files
    assert file.lines("changed") == Counts(1, 1)
    assert any("cannot be read as Python" in note for note in file.notes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x = f(a,\n      b)\n", b"\xef\xbb\xbfx = f(a, b)\n"),
        (b"\xef\xbb\xbfx = 'a'\n", b'\xef\xbb\xbfx = "a"\n'),
        (
            b"# -*- coding: latin-1 -*-\nx = f('\xe4',\n   b)\n",
            b"# -*- coding: latin-1 -*-\nx = f('\xe4', b)\n",
        ),
        (
            b"#!/bin/py\n# vim: set fileencoding=cp1252 :\nx = ('\x80')\ndef f(): return (1)\n",
            b"#!/bin/py\n# vim: set fileencoding=cp1252 :\nx = ('\x80')\ndef f(): return 1\n",
        ),
    ],
    ids=["BOM added", "BOM", "latin-1", "cp1252"],
)
def test_a_byte_order_mark_and_a_declared_encoding_are_read_as_python_reads_them(old, new):
    (file,) = compared({"a.py": old}, {"a.py": new}).files
    assert file.lines("changed") == Counts(0, 0) and file.counts.added > 0
    assert not any("cannot be read as Python" in note for note in file.notes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # The same bytes mean another string.
        (
            b"# -*- coding: latin-1 -*-\nx = '\xe4'\n",
            b"# -*- coding: cp1251 -*-\nx = '\xe4'\n",
        ),
        (b"# coding: latin-1\nx = '\xe4'\n", b"# coding: latin-1\nx = '\xe5'\n"),
        (b"x = 1\rif y: x = 2\n", b"x = 1\rif y:  x = 3\n"),
    ],
)
def test_an_encodings_change_counts(old, new):
    result = compared({"a.py": old}, {"a.py": new})
    assert result.substantive.added >= 1 and result.substantive.deleted >= 1


def test_names_that_look_like_others_are_named():
    old = "alpha = 1\nprint(alpha)\n"
    (file,) = compared(old, old.replace("print(alpha)", "\u0430lpha = 2\nprint(alpha)")).files
    (note,) = file.notes
    assert note == "names that look like others: \u0430lpha (U+0430) looks like alpha"
    (file,) = compared(old, old.replace("print", "pr\u0457nt")).files
    assert "(U+0457) mixes scripts" in file.notes[0]
    for harmless in ("# f\u00fcr\n", "x = '\u0430lpha'\n", "gr\u00f6\u00dfe = 1\n", "\u03b4 = 1\n"):
        (file,) = compared(old, old + harmless).files
        assert file.notes == ()
    (file,) = compared(old, old + "# \u202eahpla\n").files
    assert "bidi controls" in file.notes[0] and "U+202E" in file.notes[0]


def cell(source, outputs=(), **more):
    code = {"cell_type": "code", "metadata": {}, "source": source.splitlines(keepends=True)}
    return {**code, "outputs": list(outputs), "execution_count": len(outputs), "id": "x1", **more}


def written(*cells, kernel="python3"):
    metadata = {"kernelspec": {"name": kernel}, "language_info": {"version": "3.12"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4}, indent=1)


def test_notebooks_are_compared_by_cells_without_outputs():
    output = {"output_type": "stream", "name": "stdout", "text": ["7\n"]}
    text = cell("# Title\n", cell_type="markdown")
    old = written(text, cell("x = 3\nprint(x + 4)\n"))
    run = written(text, cell("x = 3\nprint(x + 4)\n", [output]))
    (file,) = compared({"a.ipynb": old}, {"a.ipynb": run}).files
    assert file.status == "changed" and file.counts == Counts(0, 0)
    assert "without outputs" in file.notes[0] and file.notes[1] == "no cell differs"
    edited_run = written(text, cell("x = 5\nprint(x + 4)\n", [output]))
    (file,) = compared({"a.ipynb": old}, {"a.ipynb": edited_run}).files
    assert file.counts == file.lines("changed") == Counts(1, 1)
    assert [file.new[row.new] for row in file.rows if row.kind == "changed"] == ["x = 5\n"]
    for other in (
        written(text, cell("x = 3\nprint(x + 4)\n"), kernel="julia"),
        written(text, cell("x = 3\nprint(x + 4)\n", metadata={"tags": ["skip"]})),
        written(text, cell("x = 3\nprint(x + 4)\n", cell_type="raw")),
    ):
        assert compared({"a.ipynb": old}, {"a.ipynb": other}).substantive == Counts(1, 1)


@pytest.mark.parametrize("broken", ["{", "[]", '{"cells": 3}', '{"cells": [{}]}', "\xff"])
def test_a_broken_notebook_is_compared_as_text(broken):
    (file,) = compared({"a.ipynb": written(cell("x = 1\n"))}, {"a.ipynb": broken}).files
    assert file.counts.added == 1 and file.counts.deleted > 5


def test_deep_nesting_is_compared_as_text():
    deep = "x = " + "(" * 5000 + ")" * 5000 + "\n"
    assert compared(deep, deep.replace("x", "y")).counts == Counts(1, 1)


# -- files and names --------------------------------------------------------------------------


def test_renamed_files_are_paired():
    many = "".join(f"line {n}\n" for n in range(20))
    old = {"exact.txt": "same\n", "like.txt": many, "gone.txt": "old\n"}
    new = {"moved.txt": "same\n", "near.txt": many + "more\n", "come.txt": "new\n"}
    result = {(f.old_path, f.new_path, f.status) for f in compared(old, new).files}
    assert result == {
        ("exact.txt", "moved.txt", "renamed"),
        ("like.txt", "near.txt", "renamed"),
        ("gone.txt", None, "removed"),
        (None, "come.txt", "added"),
    }


def test_the_variants_own_name_is_no_change():
    old = "from experiments.grug.base.model import A\nP = 'experiments/grug/base/model.py'\n"
    result = compared(old, old.replace("base", "copy"))
    assert result.counts == result.substantive == Counts(0, 0)
    assert lines(result) == {"name": (2, 2)}
    assert result.files[0].status == "changed" and result.changes == ()


@pytest.mark.parametrize(
    "old, new, place",
    [
        ("x = f(a) + a\n", "x = f(b) + a\n", ("a", "b")),
        ("x = np.abs(y)\n", "x = np.exp(y)\n", ("np/abs", "np/exp")),
        ("p = 'experiments/grug/base-x'\n", "p = 'experiments/grug/copy-x'\n", (OLD, NEW)),
        ("p = 'experiments/grug/base.md'\n", "p = 'experiments/grug/copy.md'\n", (OLD, NEW)),
        ("p = 'my/experiments/grug/base'\n", "p = 'my/experiments/grug/copy'\n", (OLD, NEW)),
        ("import experiments.grug.base2\n", "import experiments.grug.copy2\n", (OLD, NEW)),
        ("# experiments/grug/base\n", "# experiments/grug/copy\n", (OLD, NEW)),
        # It named the copy, and names itself now; or only a part of it is the copy's.
        ("p = 'experiments/grug/copy'\n", "p = 'experiments/grug/base'\n", (OLD, NEW)),
        (
            "p, q = 'experiments/grug/base', 'experiments/grug/copy'\n",
            "p, q = 'experiments/grug/copy', 'experiments/grug/base'\n",
            (OLD, NEW),
        ),
        (
            "p, q = 'experiments/grug/base', 'experiments/grug/base'\n",
            "p, q = 'experiments/grug/copy', 'experiments/grug/base'\n",
            (OLD, NEW),
        ),
    ],
)
def test_what_is_not_the_variants_own_name_counts(old, new, place):
    sides = [{"model.py": File(text.encode())} for text in (old, new)]
    result = compare(Source(place[0], sides[0]), Source(place[1], sides[1]))
    assert result.counts == result.substantive == Counts(1, 1)


def test_a_renamed_function_is_one_change():
    result = compared(MODEL, edit(MODEL, ("def loss(", "def objective(")))
    assert [(c.name, c.old_name, c.how, c.bucket) for c in result.changes] == [
        ("objective", "loss", "renamed", "loss kernel")
    ]


# -- properties -------------------------------------------------------------------------------

LINE = st.sampled_from(
    [BLOCK, BLOCK.replace("rotate", "turn"), "class C:\n    x = 1\n    def g(self): return 2\n",
     "def f(a):\n", "    return a\n", "class C:\n", "    def g(self):\n", "        pass\n", "\n",
     "x = 1\n", "x = (1,\n", "2)\n", "# c\n", 'y = """\n', "y = 'q'\n", 'y = "q"\n',
     "\ufeff\u202e\n", "\tz\r\n"]
)  # fmt: skip
SOURCE = st.lists(LINE, max_size=40).map("".join)


@settings(max_examples=200, deadline=None)
@given(SOURCE, SOURCE, st.sampled_from(["a.py", "a.md", "a.txt"]))
def test_both_sides_can_be_rebuilt_and_no_more_is_substantive_than_changed(old, new, path):
    result = compared({path: old}, {path: new})
    (file,) = result.files
    for side, source in (("old", old), ("new", new)):
        at = [getattr(row, side) for row in file.rows if getattr(row, side) is not None]
        assert sorted(at) == list(range(len(at)))
        assert "".join(getattr(file, side)[n] for n in sorted(at)) == source
    assert [r.new for r in file.rows if r.new is not None] == list(range(len(file.new)))
    assert file.counts == count(file.old, file.new)
    left = file.lines("changed")
    assert left.added <= file.counts.added and left.deleted <= file.counts.deleted
    for row in file.rows:
        if row.kind == "same":
            assert file.old[row.old] == file.new[row.new]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_never_called_unchanged(old, new):
    (file,) = compared({"a.py": old}, {"a.py": new}).files
    assert (file.status == "unchanged") == (old == new)


# -- bounds -----------------------------------------------------------------------------------


def similar(word):
    return "".join(f"value_{n} = compute({n}, {word}) + offset[{n}]\n" for n in range(1000))


@pytest.mark.parametrize(
    "old, new, steps",
    [
        (similar("alpha"), similar("beta"), 200_000),
        ("x\n" * 5000 + "y\n", "y\n" + "x\n" * 4990, MAX_STEPS),
        (
            "".join(f"{n % 2}{n % 3}\n" for n in range(3000)),
            "".join(f"{n % 3}{n % 2}\n" for n in range(3000)),
            MAX_STEPS,
        ),
        (
            "".join(f"def f{n}(): pass\n" for n in range(2000)),
            "".join(f"def f{n}(): pass\n" for n in reversed(range(2000))),
            2_000_000,
        ),
        ("word " * 20_000, "drow " * 20_000, 2_000_000),
        (" " * 10**6 + "x", " " * 10**6 + "y", 2_000_000),
    ],
    ids=["similar", "common", "periodic", "reversed", "long line", "spaces"],
)
def test_work_is_bounded(old, new, steps):
    budget = Budget(MAX_STEPS)
    compared(old, new, budget=budget)
    assert budget.spent <= 2 * steps  # to count, and to explain


def test_common_lines_alone_spend_a_budget_instead_of_time():
    """difflib would take minutes here; the refusal shows that it was asked for less."""
    old = "".join(f"{n % 2}{n % 3}\n" for n in range(3000))
    new = "".join(f"{n % 3}{n % 2}\n" for n in range(3000))
    budget = Budget(300_000)
    assert compared({"a.txt": old}, {"a.txt": new}, budget=budget).notes
    assert budget.refused


def test_large_blocks_are_paired_by_position(monkeypatch):
    calls = 0

    def likeness(a, b):
        nonlocal calls
        calls += 1
        return 1.0

    monkeypatch.setattr(words, "_likeness", likeness)
    words.pair(["a"] * 1000, ["b"] * 1001, Budget())
    assert calls == 0
    words.pair(["a"] * 100, ["b"] * 100, Budget())
    assert calls == 10_000


def test_a_spent_budget_is_said():
    result = compared(similar("alpha"), similar("beta"), budget=Budget(100))
    assert result.notes and result.substantive.added <= 1000


def test_beyond_the_budget_a_file_counts_as_git_counts_it():
    old = {"a.py": similar("alpha"), "b.py": "x = 1\ny = [2,\n     3]\n"}
    new = {"a.py": similar("( alpha )"), "b.py": "x = 1\ny = [2, 3]\n"}
    within, beyond = (compared(old, new, budget=Budget(steps)) for steps in (8_000_000, 5_000))
    assert within.substantive.added == within.substantive.deleted == 1000 and not within.notes
    (note,) = beyond.notes
    assert note.startswith("a.py: too much")
    large, small = beyond.files
    assert large.lines("changed") == large.counts == Counts(1000, 1000)
    # The next file has a budget of its own.
    assert small.lines("format") == small.counts == Counts(1, 2)


def test_few_changes_of_large_files_count_as_git_counts_them():
    values = [[f"    {(n * k * n) % 7},\n" for n in range(3800)] for k in (3, 5, 11)]
    sides = {}, {}
    for number, lines in enumerate(values):
        for side, text in zip(
            sides, (lines, [*lines[:900], "    77,\n", *lines[901:]]), strict=True
        ):
            side[f"{number}.py"] = "x = [\n" + "".join(text) + "]\n"
    result = compared(*sides)
    assert result.counts == result.substantive == Counts(3, 3) and not result.notes
    blank = "".join(f"value_{n} = {n % 9}\n\n" for n in range(8000)).splitlines(keepends=True)
    old, new = ("".join([*blank[:at], "\n", *blank[at:]]) for at in (5000, 9000))
    result = compared(old, new)
    assert result.counts == Counts(1, 1) and result.substantive == Counts(0, 0)


def test_what_moved_from_a_file_that_is_not_explained_counts():
    """Its lines in the other file are no move of something that nobody looked at."""
    block = "def first(x):\n    doubled = 2 * x + 1\n    return doubled / (doubled - x)\n"
    old = {"a.py": similar("alpha") + block, "b.py": "x = 1\n"}
    new = {"a.py": similar("( alpha )"), "b.py": "x = 1\n" + block}
    result = compared(old, new, budget=Budget(9_000))
    assert [note.partition(":")[0] for note in result.notes] == ["a.py"]
    assert result.files[1].lines("changed") == Counts(3, 0)
