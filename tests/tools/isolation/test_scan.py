"""Ways out of a variant that its source shows; and what must not be taken for one."""

import os
from pathlib import Path

import pytest

from tools.isolation.scan import links, scan

VARIANT = "experiments/grug/moe"
FILE = f"{VARIANT}/model.py"


def lines(code: str, path: str = FILE) -> list[str]:
    return [str(finding) for finding in scan(path, code, VARIANT)]


@pytest.mark.parametrize(
    "code, message",
    [
        ("import experiments.grug.base.model", "imports experiments.grug.base.model"),
        ("from experiments.grug.base import model", "imports experiments.grug.base (model)"),
        ("from experiments.grug import base, moe", "imports experiments.grug (base)"),
        ("import experiments.grug.moe2", "imports experiments.grug.moe2"),
        ("from tools.corpus.cli import main", "imports tools.corpus.cli (main)"),
        ("import tests", "imports tests"),
        ("from ..base import model", "imports experiments.grug.base (`from ..base import model`)"),
        ("from .. import base", "imports experiments.grug (`from .. import base`)"),
        ("from ......x import y", "imports x (`from ......x import y`)"),
        ("import importlib", "imports importlib"),
        ("import importlib.util as u", "imports importlib.util"),
        ("from importlib import util", "imports importlib.util"),
        ("from importlib.util import find_spec", "imports importlib.util"),
        ("import runpy", "imports runpy"),
        ("import pkgutil", "imports pkgutil"),
        ("__import__('x')", "uses __import__"),
        ("e = eval", "uses eval"),
        ("import builtins\nbuiltins.exec('1')", "uses builtins.exec"),
        ("import sys\nsys.path[0]", "uses sys.path"),
        ("import sys as s\ns.modules", "uses sys.modules"),
        ("from sys import meta_path", "takes sys.meta_path"),
        ("def t(m):\n    m.syspath_prepend('x')", "uses syspath_prepend"),
        (
            "x = 'experiments.grug.base.train.loader'",
            "names the module experiments.grug.base.train",
        ),
        ("x = 'experiments.grug.' + 'base'", "names the module experiments.grug.base"),
        ("open('experiments/grug/base/a.py')", "names the path experiments/grug/base/a.py"),
        ("open('./tools/corpus/cli.py')", "names the path ./tools/corpus/cli.py"),
        ("open('../base/model.py')", "names the path ../base/model.py"),
        ("Path('experiments') / 'grug' / 'base'", "names the path experiments/grug/base"),
        ("os.path.join('experiments', 'grug', 'base')", "names the path experiments/grug/base"),
        ("x = f'experiments/grug/base/{name}'", "names the path experiments/grug/base/"),
        ("def (:", "cannot be read as Python"),
    ],
)
def test_ways_out_are_named_with_their_line(code, message):
    (line,) = lines("\n\n" + code)[-1:]
    assert line.startswith(f"{FILE}:{2 + len(code.splitlines())}: {message}")


@pytest.mark.parametrize(
    "code",
    [
        "import jax\nimport json, sys\nsys.argv, sys.exit",
        "from experiments.grug.moe import model",
        "from experiments.grug import moe",
        "import experiments.grug.moe.train as t",
        "from . import train\nfrom .train import step",
        "import importlib.metadata\nfrom importlib import resources",
        "importlib.metadata.version('jax')",
        '"""See experiments/grug/base/model.py and experiments.grug.base."""',
        "def f():\n    'tools/corpus'",
        "f'experiments/grug/{name}'",
        "x = 'a/b', 'runs/moe-1', '/tmp/x', 'train/tokens', 'grug', 'jax.numpy', '..', '../'",
        "x = 'experiments.grug.moe.model', 'experiments/grug/moe/launch.py'",
        "x = './pants run corpus -- build TEXT --out STORE'",
        "LOCK = HERE.parents[2] / 'tools/locks/cpu.lock'",
        "import re\nre.compile('x')\njitted.lower().compile()",
    ],
)
def test_what_is_no_way_out(code):
    assert lines(code) == []


def test_a_file_in_a_subdirectory_may_reach_its_parent_directory():
    inner = f"{VARIANT}/kernels/fast.py"
    assert lines("from .. import model\nfrom ..model import x", inner) == []
    assert len(lines("from ... import base", inner)) == 1


def test_a_remedy_is_said():
    (line,) = lines("import experiments.grug.base")
    assert line.endswith("outside experiments/grug/moe/: copy the code into experiments/grug/moe/")


def test_a_speedrun_with_a_date_in_its_name():
    directory = "experiments/speedrun/2026-01-31_fast"
    code = f"x = '{directory.replace('/', '.')}.run', '{directory}/run.py'"
    assert scan(f"{directory}/run.py", code, directory) == []
    assert (
        len(scan(f"{directory}/run.py", "x = 'experiments/speedrun/2026-01-30_slow'", directory))
        == 1
    )


def test_links(tmp_path: Path):
    directory = tmp_path / VARIANT
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "experiments/grug/base").mkdir()
    for name, target in {
        "inside.py": "model.py",
        "sub/up.py": "../model.py",
        "outside.py": "../base/model.py",
        "sub/far.py": "../../base/model.py",
        "directory": "../base",
        "absolute.py": str(directory / "model.py"),
        "dangling.py": "../gone.py",
    }.items():
        os.symlink(target, directory / name)
    result = {f.path.removeprefix(f"{VARIANT}/") for f in links(tmp_path, VARIANT)}
    assert result == {"outside.py", "sub/far.py", "directory", "absolute.py", "dangling.py"}


def test_a_variant_that_is_itself_a_link(tmp_path: Path):
    (tmp_path / "experiments/grug/base").mkdir(parents=True)
    os.symlink("base", tmp_path / VARIANT)
    assert [f.path for f in links(tmp_path, VARIANT)] == [VARIANT]
