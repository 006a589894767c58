"""What a variant imports and its bundle's lock lacks, by file and line."""

import json

import pytest

from tools.bundle.__main__ import main
from tools.bundle.imports import Import, check, first_import
from tools.bundle.lock import Lock
from tools.common.errors import ToolError

SOURCE = """\
import os, numpy as np

def f():
    from yaml.nodes import Node
    import google.cloud
    from google.cloud import storage, tasks
    from . import arrow
    from .arrow import deep
"""


@pytest.mark.parametrize(
    ("modules", "line"),
    [
        ({"numpy"}, (1, "import os, numpy as np")),
        ({"yaml"}, (4, "from yaml.nodes import Node")),
        ({"google.cloud.storage"}, (6, "from google.cloud import storage, tasks")),
        ({"google.cloud"}, (5, "import google.cloud")),
        ({"num", "arrow", "nodes", "Node"}, None),
        ({"yaml", "numpy"}, (1, "import os, numpy as np")),
    ],
)
def test_the_first_statement_that_imports_a_module(modules, line):
    assert first_import(SOURCE, modules) == line


def test_a_source_that_does_not_parse_has_no_line():
    assert first_import("import (", {"numpy"}) is None


def lock(*names: str) -> Lock:
    entries = [
        {"project_name": n, "version": "1", "requires_dists": [], "artifacts": []} for n in names
    ]
    text = json.dumps({"locked_resolves": [{"locked_requirements": entries}]})
    return Lock.parse(text, "tools/locks/gpu.lock")


def test_each_file_that_imports_what_is_not_locked_is_a_line(tmp_path):
    (tmp_path / "model.py").write_text("import jax\nimport yaml\n")
    (tmp_path / "data.py").write_text("# by a BUILD file alone\n")
    imports = [
        Import("model.py", "jax", "jax"),
        Import("model.py", "PyYAML", "_yaml"),
        Import("model.py", "PyYAML", "yaml"),
        Import("data.py", "pyarrow", "pyarrow"),
        Import("not/here.py", "pyarrow", "pyarrow"),
    ]
    with pytest.raises(ToolError) as caught:
        check(lock("jax"), imports, tmp_path)
    assert str(caught.value).splitlines() == [
        "data.py needs pyarrow, which tools/locks/gpu.in lacks: ./pants run locks -- add pyarrow",
        "model.py:2: import yaml: needs PyYAML, which tools/locks/gpu.in lacks: "
        "./pants run locks -- add PyYAML",
        "not/here.py needs pyarrow, which tools/locks/gpu.in lacks: "
        "./pants run locks -- add pyarrow",
    ]
    check(lock("jax", "pyyaml", "pyarrow"), imports, tmp_path)


@pytest.mark.parametrize("command", ["pack", "wheels"])
def test_both_commands_say_so(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu.lock").write_text(lock("jax").text)
    (tmp_path / "model.py").write_text("import pyarrow\n")
    words = [command, "--accelerator=gpu", "--lock=gpu.lock", "--import=pyarrow:pyarrow:model.py"]
    more = {"pack": ["--variant=v", "--entry=model", "--out=out", "model.py"], "wheels": ["out"]}
    assert main([*words, *more[command]]) == 1
    said = capsys.readouterr().err
    assert said == (
        "bundle: model.py:1: import pyarrow: needs pyarrow, which gpu.in lacks: "
        "./pants run locks -- add pyarrow\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "a", "a:b", ":b:c", "a::c"])
def test_a_malformed_flag_is_refused(text):
    with pytest.raises(ToolError, match="write REQUIREMENT:MODULE:PATH"):
        Import.parse(text)
