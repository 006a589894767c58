"""Plumbing that is byte for byte what the origin's once was is brought to what it is now."""

import json

import pytest

from tests.tools.lifecycle.conftest import BASE

COPIES = ("experiments/grug/relu", "experiments/grug/tanh")
APPLY = ("drift", "--apply", "plumbing")


@pytest.fixture
def two(workspace):
    """Two copies of a base that has plumbing."""
    workspace.write(f"{BASE}/plumbing/data.py", "A = 1\n")
    workspace.write(f"{BASE}/plumbing/gone.py", "G = 1\n")
    workspace.write(f"{BASE}/planning/plan.py", "from ..model import W\n")
    workspace.commit("plumbing")
    for copy in COPIES:
        assert workspace.fork(copy.rpartition("/")[2]) == 0
        workspace.commit("fork")
    return workspace


def move_on(workspace) -> None:
    """Base's plumbing in two steps: an edit, then another, a new file and one that goes."""
    workspace.write(f"{BASE}/plumbing/data.py", "A = 2\n")
    workspace.commit("two")
    workspace.write(f"{BASE}/plumbing/data.py", "A = 3\n")
    workspace.write(f"{BASE}/plumbing/new.py", "N = 1\n")
    (workspace.root / BASE / "plumbing/gone.py").unlink()
    workspace.commit("three")


def plumbing(workspace, variant: str) -> dict[str, str]:
    directory = workspace.root / variant
    files = [*directory.glob("plumbing/*.py"), *directory.glob("planning/*.py")]
    return {str(file.relative_to(directory)): file.read_text() for file in files}


def test_all_copies_in_one_command(two, capsys):
    move_on(two)
    two.write(f"{COPIES[1]}/plumbing/data.py", "A = 2\n")  # as base's was in between
    two.commit("half way")
    assert two.run(*APPLY) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{copy}: 3 files brought to base's" for copy in COPIES]
    assert lines[2].startswith("next: ")
    for copy in COPIES:
        assert plumbing(two, copy) == plumbing(two, BASE)
    two.commit("forward")
    assert two.run(*APPLY) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"
    assert two.git("status", "-s") == ""


def test_a_copys_own_file_stays_and_is_named(two, capsys):
    two.write(f"{COPIES[0]}/plumbing/data.py", "A = 'mine'\n")
    two.write(f"{COPIES[0]}/plumbing/own.py", "O = 1\n")
    (two.root / COPIES[0] / "planning/plan.py").unlink()
    two.commit("its own")
    move_on(two)
    assert two.run(*APPLY, COPIES[0]) == 0
    out = capsys.readouterr().out
    for name in ("plumbing/data.py", "plumbing/own.py", "planning/plan.py"):
        assert f"{COPIES[0]}/{name}: is its own, and stays" in out
    assert plumbing(two, COPIES[0]) == {
        "plumbing/data.py": "A = 'mine'\n",
        "plumbing/new.py": "N = 1\n",
        "plumbing/own.py": "O = 1\n",
    }
    assert plumbing(two, COPIES[1])["plumbing/data.py"] == "A = 1\n"  # it was not named


def test_what_is_not_committed_is_refused(two, capsys):
    move_on(two)
    two.write(f"{COPIES[1]}/plumbing/data.py", "A = 'half'\n")
    before = two.state()
    assert two.run(*APPLY) == 1
    assert f"{COPIES[1]}/plumbing/data.py: not committed" in capsys.readouterr().err
    assert two.state() == before


def test_nothing_is_lacked_afterwards(two, capsys):
    """A hunk that a later commit changed again is no conflict in a file that is the origin's."""
    move_on(two)
    assert two.run(*APPLY) == 0
    two.commit("forward")
    capsys.readouterr()
    assert two.run("drift", "--format", "json") == 0
    for variant in json.loads(capsys.readouterr().out)["variants"]:
        assert [commit["state"] for commit in variant["commits"]] == ["already there"] * 2


def test_a_file_that_a_copy_removed_stays_away_under_its_new_name(two):
    (two.root / COPIES[0] / "plumbing/gone.py").unlink()
    two.commit("relu does without")
    assert two.run("rename", "relu", "--to=wide_mlp") == 0
    two.commit("rename")
    assert two.run(*APPLY) == 0
    assert not (two.root / "experiments/grug/wide_mlp/plumbing/gone.py").exists()
