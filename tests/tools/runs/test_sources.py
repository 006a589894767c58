"""One rule for what a variant runs: in its runs, in the build and in the archive's tools."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.grug.base.plumbing import sources as template
from tests.tools.runs.conftest import GIT, entry, rows
from tools.common.errors import ToolError
from tools.common.sources import is_source
from tools.runs import run_summary
from tools.runs.compare_runs import groups
from tools.runs.kept_sources import digest_of
from tools.runs.record import record

PLUGIN = Path("tools/pants_plugins/grug/sources.py")
FILES = {
    "model.py": "WIDTH = 8\n",
    "kernels/fast.py": "SCALE = 1.0\n",
    "kernels/table.json": "[1]",
    "notes.md": "Why.",
    "dätä/two words.txt": "x",
    "dätä/line\nfeed.csv": "y",
    "dätä/a#b:c@d.bin": "\0",
    "testing.py": "",
    "test_data/golden.json": "[]",
}
# What is in the workspace and not in a bundle, and no run reads.
BESIDE = {
    "BUILD": "grug_variant()",
    "kernels/BUILD.extra": "",
    "test_model.py": "",
    "kernels/fast_test.py": "",
    "conftest.py": "",
    ".notes": "",
    ".cache/big.json": "",
    "__pycache__/model.cpython-313.pyc": "",
    "kernels/__pycache__/x.json": "",
}


def load(path: Path) -> Any:
    """A Python file as a module, of wherever it lies."""
    name = f"sources_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


PARTS = ["a", ".a", "x.py", "test_x.py", "x_test.py", "test_x.json", "conftest.py", "BUILD"]
PARTS += ["BUILD.x", "BUILDER", "__pycache__", "conftest.pyi", ".x.py", "é.py", "test_.py", "x.pyc"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join))
def test_the_three_statements_of_the_rule_agree(path):
    plugin = load(PLUGIN)
    assert template.is_source(path) == is_source(path) == plugin.is_source(path)


def write(root: Path, files: dict[str, str], variant: str = "base") -> Path:
    """A variant in a workspace, with the template's own module that finds its sources."""
    directory = root / "experiments/grug" / variant
    code = Path(template.__file__).read_text()
    for name, text in {**files, "plumbing/sources.py": code}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def found(directory: Path) -> Any:
    """What a run of the variant in that directory would record."""
    return load(directory / "plumbing/sources.py").find_sources()


def test_a_run_in_the_workspace_and_one_from_a_bundle_are_of_the_same_sources(tmp_path):
    workspace = found(write(tmp_path / "workspace", FILES | BESIDE))
    bundle = found(write(tmp_path / "bundle", FILES))
    assert workspace.digests.keys() == FILES.keys() | {"plumbing/sources.py"}
    assert workspace.digest == bundle.digest == digest_of(bundle.digests)
    assert workspace.copies()["kernels/table.json"] == b"[1]"


@pytest.mark.parametrize("name", [name for name in FILES if name != "testing.py"])
def test_every_file_counts(tmp_path, name):
    one = found(write(tmp_path / "one", FILES))
    other = found(write(tmp_path / "other", {**FILES, name: "edited"}))
    assert one.digest != other.digest
    fewer = {file: text for file, text in FILES.items() if file != name}
    assert found(write(tmp_path / "fewer", fewer)).digest != one.digest


def test_a_large_file_is_recorded_without_a_copy(tmp_path, monkeypatch):
    directory = write(tmp_path, FILES | {"weights.bin": "0" * 2**20, "more.bin": "0" * (2**20 + 1)})
    sources = found(directory)
    assert {"weights.bin", "more.bin"} <= sources.digests.keys()
    assert sources.paths.keys() - sources.copies().keys() == {"more.bin"}


@pytest.mark.parametrize("target", ["../elsewhere.json", "model.py", "kernels", "nowhere"])
def test_a_symbolic_link_is_refused(tmp_path, target):
    directory = write(tmp_path, FILES)
    (directory / "link").symlink_to(target)
    with pytest.raises(ValueError, match=r"base/link: is a symbolic link, .*: copy it$"):
        found(directory)
    (directory / "link").rename(directory / ".link")
    found(directory)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    directory = write(tmp_path, FILES)
    (Path(os.fsdecode(os.fsencode(directory) + b"/\xff.json"))).write_text("")
    with pytest.raises(ValueError, match=r"base/.*\.json.*: is no UTF-8: rename it$"):
        found(directory)


@pytest.fixture
def repository(tmp_path):
    """(the workspace's root, git in it)"""
    write(tmp_path, FILES | BESIDE)

    def git(*arguments: str) -> str:
        command = [*GIT, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / ".gitignore").write_text("*.npy\n__pycache__\n")
    git("add", "--all")
    git("commit", "-qm", "all")
    return tmp_path, git


def state(directory: Path) -> dict[str, Any]:
    module = load(directory / "plumbing/sources.py")
    return module.git_state(module.find_sources())


def test_the_commit_is_that_of_the_sources(repository, tmp_path_factory, monkeypatch):
    """Not that of the directory that the run was started in."""
    root, git = repository
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    subprocess.run(["git", "init", "-q", elsewhere], check=True)
    monkeypatch.chdir(elsewhere)
    commit, directory = git("rev-parse", "HEAD"), root / "experiments/grug/base"
    assert state(directory) == {"commit": commit, "dirty": False}
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))  # as a hook sets it
    assert state(directory) == {"commit": commit, "dirty": False}
    copy = write(tmp_path_factory.mktemp("copy"), FILES)
    assert state(copy) == {"commit": None, "dirty": None}
    monkeypatch.setenv("GRUG_WORKSPACE", str(root))  # the launcher runs a copy
    assert state(copy) == {"commit": commit, "dirty": False}
    (copy / "kernels/table.json").write_text("[2]")
    assert state(copy) == {"commit": commit, "dirty": True}


@pytest.mark.parametrize(
    "change, dirty",
    [
        ({"kernels/table.json": "[2]"}, True),
        ({"new.json": ""}, True),
        ({"ignored.npy": ""}, True),
        ({"kernels/fast.py": None}, True),
        ({"dätä/line\nfeed.csv": None}, True),
        ({"test_model.py": "edited", "BUILD": None, ".new": "", "conftest.py": None}, False),
    ],
)
def test_whether_the_commit_holds_what_runs(repository, change, dirty):
    root, git = repository
    git("config", "status.showUntrackedFiles", "no")
    directory = root / "experiments/grug/base"
    for name, text in change.items():
        if text is None:
            (directory / name).unlink()
        else:
            (directory / name).write_text(text)
    assert state(directory)["dirty"] is dirty


def test_what_a_run_says_of_itself_is_what_the_archive_finds(repository, workspace):
    """The template's digest of files on disk is the tools' digest of files in a commit."""
    root, git = repository
    workspace.write_ledger(entry("base"))
    sources = found(root / "experiments/grug/base")
    texts = {name: content.decode() for name, content in sources.copies().items()}
    first = workspace.write_run("base-1", rows(10), commit=git("rev-parse", "HEAD"), sources=texts)
    assert json.loads((first / "run.json").read_text())["sources"] == {
        sources.digest: sources.digests
    }
    (root / "experiments/grug/base/kernels/table.json").write_text("[3]")
    edited = found(root / "experiments/grug/base")
    texts = {name: content.decode() for name, content in edited.copies().items()}
    second = workspace.write_run("base-2", rows(10), config={"seed": 1}, sources=texts, commit=None)
    assert root == workspace.root
    paths = record([first, second], workspace.root)
    one, other = (run_summary.load(workspace.root / path, path) for path in paths[:2])
    assert (one.git["dirty"], other.git["dirty"]) == (False, True)
    assert len(groups([one, other])) == 2


def test_copies_that_are_not_what_run_json_lists_are_refused(workspace):
    run = workspace.write_run("base-1", rows(10))
    (copy,) = (run / "sources").iterdir()
    (copy / "table.json").write_text("{}")
    with pytest.raises(ToolError, match=r"is not what ran .*: run it again"):
        record([run], workspace.root)
