"""What counts as a reference, and what only looks like one."""

from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.common.names import Rename, mentions

RELU = Rename("experiments/grug/base", "experiments/grug/relu")
ROOT = Path(__file__).parents[3]


def renamed(text: str, path: str = "x.py", rename: Rename = RELU) -> str:
    return rename.strict(path, text.encode()).decode()


@pytest.mark.parametrize(
    "before, after",
    [
        ("import experiments.grug.base\n", "import experiments.grug.relu\n"),
        ("import experiments.grug.base.a as a\n", "import experiments.grug.relu.a as a\n"),
        ("import os, experiments.grug.base.a\n", "import os, experiments.grug.relu.a\n"),
        ("from experiments.grug.base.a import b\n", "from experiments.grug.relu.a import b\n"),
        ("from experiments . grug . base import b\n", "from experiments . grug . relu import b\n"),
        ("from experiments.grug import base\n", "from experiments.grug import relu as base\n"),
        ("from experiments.grug import base as b\n", "from experiments.grug import relu as b\n"),
        ("from .. import base\n", "from .. import relu as base\n"),
        ("from ..base.a import base\n", "from ..relu.a import base\n"),
        ("from ...grug.base import b\n", "from ...grug.relu import b\n"),
        ("x = experiments.grug.base.a.f()\n", "x = experiments.grug.relu.a.f()\n"),
        ("x = 'experiments.grug.base.a'\n", "x = 'experiments.grug.relu.a'\n"),
        ("x = b'experiments/grug/base'\n", "x = b'experiments/grug/relu'\n"),
        ("x = f'{p or \"experiments.grug.base\"}'\n", "x = f'{p or \"experiments.grug.relu\"}'\n"),
        ("x = f'{r}/experiments/grug/base/{y}'\n", "x = f'{r}/experiments/grug/relu/{y}'\n"),
        ("x = './experiments/grug/base/a.py'\n", "x = './experiments/grug/relu/a.py'\n"),
        ('"""é experiments/grug/base."""; y = 1\n', '"""é experiments/grug/relu."""; y = 1\n'),
        ("é = 'experiments.grug.base' # experiments.grug.base\n",
         "é = 'experiments.grug.relu' # experiments.grug.base\n"),
        ("x = ('a'  # experiments/grug/base\n 'experiments/grug/base')\n",
         "x = ('a'  # experiments/grug/base\n 'experiments/grug/relu')\n"),
        ("if 1:\n\tfrom experiments.grug.base import b\r\n",
         "if 1:\n\tfrom experiments.grug.relu import b\r\n"),
    ],
)  # fmt: skip
def test_references_are_rewritten_and_written_back(before, after):
    assert renamed(before) == after
    assert renamed(after, rename=RELU.undone()) == before


@pytest.mark.parametrize(
    "text",
    [
        "import experiments.grug.base2\n",
        "import xexperiments.grug.base\n",
        "import experiments.grug.moe.base\n",
        "from .base import a\n",
        "from . import base\n",
        "from experiments.grug.moe import base\n",
        "x = my.experiments.grug.base\n",
        "x = 'experiments.grug.base2', 'xexperiments.grug.base', 'my.experiments.grug.base'\n",
        "x = 'experiments/grug/base-old', 'docs/experiments/grug/base'\n",
        "x = 'experiments/grug/base.md'\n",
        "# experiments.grug.base, experiments/grug/base\n",
    ],
)
def test_lookalikes_and_comments_stay(text):
    assert renamed(text) == text


def test_files_that_are_no_python_stay_and_build_files_do_not():
    text = "f(x='experiments/grug/base:lib')  # experiments/grug/base\n"
    assert renamed(text, "notes.md") == text
    assert renamed(text, "BUILD") == text.replace("base:", "relu:")


def test_encodings_and_line_ends_are_kept():
    latin = "# coding: latin-1\r\nx = 'é experiments.grug.base'\r\n"
    found = RELU.strict("x.py", latin.encode("latin-1"))
    assert found == latin.replace("base", "relu").encode("latin-1")
    mark = b"\xef\xbb\xbfimport experiments.grug.base\n"
    assert RELU.strict("x.py", mark) == mark.replace(b"base", b"relu")


@pytest.mark.parametrize(
    "data",
    [
        b"import (experiments.grug.base\n",
        b"x = 'experiments.grug.base \xff'\n",
        b"'experiments.grug.base'\0\n",
    ],
)
def test_what_cannot_be_read_is_refused_or_left(data):
    with pytest.raises(ToolError, match="experiments/grug/base/x.py: cannot be read as Pyt"):
        RELU.strict("x.py", data)
    assert RELU.loose("x.py", data) == data


def test_mentions_in_any_text():
    text = "see experiments/grug/base/, `experiments.grug.base` and experiments/grug/base2"
    assert [text[f.start : f.end] for f in mentions(text, RELU.old)] == [
        "experiments/grug/base",
        "experiments.grug.base",
    ]


@pytest.mark.parametrize("variant", ["base", "moe"])
def test_the_real_variants_name_themselves_nowhere(variant):
    """So a copy's plumbing is the same bytes, and no name is too long for a line."""
    directory = ROOT / f"experiments/grug/{variant}"
    files = sorted(directory.rglob("*.py"))
    assert len(files) > 15
    for path in files:
        assert not list(mentions(path.read_text(), f"experiments/grug/{variant}")), path
