"""The recipe in the repositories that people have, with the settings that they have."""

import subprocess
from pathlib import Path

import pytest

from tests.tools.lifecycle.conftest import BASE, Workspace, fill
from tools.common.git import _environment as environment

ROOT = Path(__file__).parents[3]
COPY = "experiments/grug/relu"
SETTINGS = {
    "colours": "[color]\nui = always\n",
    "an external diff": "[diff]\nexternal = false\nnoprefix = true\nmnemonicPrefix = true\n",
    "untracked files unshown": "[status]\nshowUntrackedFiles = no\nrelativePaths = true\n",
    "CRLF": "[core]\nautocrlf = true\n",
    "no renames": "[diff]\nrenames = false\nrelative = true\n[merge]\nconflictStyle = zdiff3\n",
    "another's repository": "[safe]\ndirectory = *\n",
}


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A user without settings; gives a function that writes some."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    environment.cache_clear()
    yield lambda text: (home / ".gitconfig").write_text(text)
    environment.cache_clear()


def recipe(workspace: Workspace) -> None:
    """Fork, edit, drift, upstream and retire, each committed; the check holds after each."""
    assert workspace.fork() == 0
    workspace.commit("fork")
    assert workspace.faults() == []
    workspace.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'mine'\n")
    workspace.commit("edit the copy")
    workspace.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'since'\n")
    since = workspace.commit("edit base")
    assert workspace.run("drift", "--apply", since, "relu") == 0
    assert "V10 = 'since'\n" in workspace.read(f"{COPY}/model.py")
    workspace.commit("port")
    workspace.write(f"{COPY}/stray.py", "X = 1\n")
    assert workspace.run("upstream", "relu", "--verdict=it pays") == 1  # not committed
    (workspace.root / COPY / "stray.py").unlink()
    assert workspace.run("upstream", "relu", "--verdict=it pays") == 0
    assert workspace.read(f"{BASE}/model.py").count("'mine'") == 1
    workspace.commit("upstream")
    assert workspace.faults() == []
    assert workspace.run("retire", "relu") == 0
    workspace.commit("retire")
    assert workspace.run("relink") == 0
    assert workspace.faults() == []


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_users(tmp_path, home, monkeypatch, name):
    home(SETTINGS[name])
    if name == "another's repository":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (tmp_path / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    workspace = fill(Workspace(tmp_path))
    recipe(workspace)
    files = [p for p in tmp_path.rglob("*.md") if ".git" not in p.parts]
    assert files and not any(b"\r" in path.read_bytes() for path in files)


def test_a_repository_that_git_refuses_is_one_line(tmp_path, monkeypatch, capsys):
    workspace = fill(Workspace(tmp_path))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert workspace.run("drift") == 1
    error = capsys.readouterr().err
    assert "dubious ownership" in error and error.count("\n") == 1
    assert f"git config --global --add safe.directory {tmp_path}" in error


def test_a_checkout_has_the_bytes_that_were_committed(tmp_path, home):
    """Without .gitattributes `core.autocrlf` makes `#!/bin/sh` into `#!/bin/sh\\r`."""
    (tmp_path / "made").mkdir()
    workspace = Workspace(tmp_path / "made")
    workspace.write(".gitattributes", (ROOT / ".gitattributes").read_text())
    workspace.write("pants", "#!/usr/bin/env bash\n")
    workspace.commit()
    home(SETTINGS["CRLF"])
    clone = clone_of(workspace, tmp_path / "clone")
    assert clone.read("pants") == "#!/usr/bin/env bash\n"


def clone_of(workspace: Workspace, path: Path, *options: str) -> Workspace:
    command = ["git", "clone", "-q", *options, workspace.root.as_uri(), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return Workspace.__new__(Workspace).at(path)


def subdirectory(made: Workspace, tmp_path: Path) -> Workspace:
    outer = Workspace(tmp_path / "outer")
    outer.write("README", "another project\n")
    inner = Workspace.__new__(Workspace)
    inner.root = outer.root / "labs/grug"
    fill(inner)
    return inner


def worktree(made: Workspace, tmp_path: Path) -> Workspace:
    made.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "worktree"))
    return Workspace.__new__(Workspace).at(tmp_path / "worktree")


def submodule(made: Workspace, tmp_path: Path) -> Workspace:
    outer = Workspace(tmp_path / "outer")
    command = ("-c", "protocol.file.allow=always", "submodule", "add", "-q")
    outer.git(*command, made.root.as_uri(), "grug")
    return Workspace.__new__(Workspace).at(outer.root / "grug")


def detached(made: Workspace, tmp_path: Path) -> Workspace:
    made.git("checkout", "-q", "--detach")
    return made


def trunk(made: Workspace, tmp_path: Path) -> Workspace:
    made.git("branch", "-q", "-m", "main", "trunk")
    return made


def shallow(made: Workspace, tmp_path: Path) -> Workspace:
    made.write("other", "moves HEAD")
    made.commit("more")
    return clone_of(made, tmp_path / "clone", "--depth=1")


def partial(made: Workspace, tmp_path: Path) -> Workspace:
    made.git("config", "uploadpack.allowFilter", "true")
    made.edit(f"{BASE}/model.py", "V5 = 5\n", "V5 = 'before'\n")
    made.commit("more")
    return clone_of(made, tmp_path / "clone", "--filter=blob:none")


def path_with_odd_name(made: Workspace, tmp_path: Path) -> Workspace:
    return clone_of(made, tmp_path / "an odd näme")


PLACES = (
    subdirectory,
    worktree,
    submodule,
    detached,
    trunk,
    shallow,
    partial,
    path_with_odd_name,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_kinds_of_repositories(tmp_path, place):
    for name in ("made", "outer"):
        (tmp_path / name).mkdir()
    recipe(place(fill(Workspace(tmp_path / "made")), tmp_path))


def test_a_shallow_clone_says_what_it_lacks(tmp_path, capsys):
    """The fork point lies beyond what was fetched, and base has gone on."""
    (tmp_path / "made").mkdir()
    made = fill(Workspace(tmp_path / "made"))
    assert made.fork() == 0
    made.commit("fork")
    made.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'since'\n")
    made.commit("base goes on")
    clone = clone_of(made, tmp_path / "clone", "--depth=1")
    (fault,) = clone.faults()
    assert "relu: forked at: git knows no commit " in fault
    assert "git fetch --unshallow" in fault
    assert clone.run("drift") == 1
    assert "git fetch --unshallow" in capsys.readouterr().err
    clone.git("fetch", "-q", "--unshallow")
    assert clone.faults() == [] and clone.run("drift") == 0
