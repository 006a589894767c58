"""A copy that nobody has touched is no line away from its origin, whatever its name."""

import re
import string

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.names import Rename
from tools.diff.compare_trees import compare
from tools.diff.histogram import Counts
from tools.diff.read_trees import Source
from tools.lifecycle.fork import check_name, renamed
from tools.lifecycle.upstream import restored
from tools.variants import facts

BASE = "experiments/grug/base"
# Each line names base, or another word after experiments.grug, in a way of its own.
MODEL = b'''\
"""Run experiments/grug/base/model.py, or python -m experiments.grug.base.model."""

import experiments . grug . base . data as own
from .. import base
from ..base import data
from ..base.data import (
    WIDTH, HEIGHT, DEPTH, LENGTH, BREADTH, THICKNESS, VOLUME
)
from ...grug.base.data import WIDTH as width
from experiments.grug import base as again
from experiments.grug.base.data import WIDTH, HEIGHT, DEPTH, LENGTH, BREADTH, THICKNESS, VOLUME_A1
from experiments.\\
    grug.\\
    base import data as continued

# experiments.grug.window, experiments/grug/window and experiments/grug/window-old came first.
# experiments.grug.base, experiments/grug/base, docs/experiments/grug/window
base = base.data.WIDTH + experiments.grug.base.data.WIDTH
WORDS = "experiments/grug/base" f"{width} experiments/grug/base/{base!r}", b"experiments.grug.base"
'''
NOTES = b"See experiments/grug/base, experiments/grug/window, my.experiments.grug.window \xff\n"
FILES = {
    "BUILD": b"f(x='experiments/grug/base:lib')  # experiments/grug/window\n",
    "model.py": MODEL,
    "data.py": b"WIDTH = 1\r\nNAME = 'experiments/grug/base'  # experiments.grug.window\r\n",
    "notes.md": NOTES,
    "old.py": b"# coding: latin-1\nx = '\xe9 experiments.grug.base'\n",
    "plumbing/data.py": b"from ... import base\nfrom ...base import data\nfrom . import other\n",
    "plumbing/other.py": b"",
}
ORIGIN = {path: File(content) for path, content in FILES.items()}
TEXT = b" ".join(FILES.values()).decode(errors="ignore")
WORDS = sorted(set(re.findall(r"[a-z][a-z0-9_]*", TEXT)))
PARTS = sorted({w[i:j] for w in WORDS for i in range(len(w)) for j in range(i + 1, len(w) + 1)})
LETTERS = string.ascii_lowercase + string.digits + "_"


def allowed(name: str) -> bool:
    try:
        check_name(name)
    except ToolError:
        return False
    return name != "base"


NAMES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=60), st.sampled_from([*WORDS, *PARTS])
).filter(allowed)


@settings(deadline=None, max_examples=100)
@given(NAMES)
@example("window")
@example("data")
@example("z" * 60)
@example("x1_2")
@example("grug")
@example("experiments")
@example("a")
def test_an_untouched_copy_is_no_line_away(name):
    path = f"experiments/grug/{name}"
    copy = renamed(ORIGIN, Rename(BASE, path))
    python = [{p: f.content for p, f in t.items() if p.endswith(".py")} for t in (copy, ORIGIN)]
    measured = facts.compare(python[0], python[1], (path, BASE))
    assert measured.changed == Counts(0, 0)
    comparison = compare(Source(BASE, ORIGIN), Source(path, copy))
    assert [f.counts for f in comparison.files] == [Counts(0, 0)] * len(ORIGIN)
    assert not comparison.changes and not comparison.renames and not comparison.knobs
    assert restored(copy, Rename(BASE, path), [ORIGIN]) == ORIGIN
