"""--changed-since sees every name that git can hold, under every setting of a user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pants.base.specs import FileLiteralSpec
from pants.core.util_rules.system_binaries import GitBinary, GitBinaryException
from pants.vcs.git import GitWorktree

from grug import changed_files

NAMES = (
    "café.py",
    "two words.py",
    " first.py",
    "last ",
    'say "so".py',
    "back\\slash.py",
    "tab\there.py",
    "new\nline.py",
    "a#b.md",
    "notes:1.md",
    "zz[1].py",
    "what?*.py",
    "!important.py",
    "-dash.py",
    "@at.py",
)


class Workspace:
    def __init__(self, root: Path) -> None:
        self.root = root
        self("init", "-q", "-b", "main", ".")
        for name in ("user.name", "user.email"):
            self("config", name, "n")
        changed_files.replace()
        self.git = GitWorktree(GitBinary(shutil.which("git") or "", ""), worktree=root)

    def __call__(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)

    def write(self, text: str, *names: str, directory: str = "d") -> None:
        (self.root / directory).mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.root / directory / name).write_text(text)

    def commit(self) -> None:
        self("add", "--all")
        self("commit", "-qm", "more")

    def changed(self, since: str = "main") -> set[str]:
        return self.git.changed_files(
            from_commit=since, include_untracked=True, relative_to=self.root
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.write("old", *NAMES, "same.py")
    made.commit()
    return made


EXPECTED = {f"d/{name}" for name in NAMES}


def test_edited_committed_and_untracked_files_of_any_name(workspace: Workspace) -> None:
    workspace.write("new", *NAMES)
    assert workspace.changed() == EXPECTED
    workspace("checkout", "-qb", "branch")
    workspace.commit()
    assert workspace.changed() == EXPECTED
    assert workspace.git.changes_in("HEAD", relative_to=workspace.root) == EXPECTED
    workspace.write("new", *NAMES, directory="e")
    assert workspace.changed() == EXPECTED | {f"e/{name}" for name in NAMES}


def test_a_renamed_file_is_seen_under_both_names(workspace: Workspace) -> None:
    workspace("mv", "d/café.py", "d/thé.py")
    assert workspace.changed() == {"d/café.py", "d/thé.py"}


@pytest.mark.parametrize(
    "setting",
    ["color.ui=always", "diff.relative=true", "diff.external=false", "core.quotePath=true"],
)
def test_settings_of_a_user_change_nothing(workspace: Workspace, setting: str) -> None:
    workspace("config", *setting.split("="))
    workspace.write("new", *NAMES)
    assert workspace.changed() == EXPECTED


def test_a_list_takes_the_place_of_git(workspace: Workspace, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("".join(f"d/{name}\0" for name in NAMES))
    assert workspace.changed(f"list:{listed}") == EXPECTED
    listed.write_text("")
    assert workspace.changed(f"list:{listed}") == set()


def test_a_name_that_is_no_text_is_one_line(workspace: Workspace) -> None:
    with pytest.raises(GitBinaryException, match=r"d/\\xff.py' is no UTF-8, .* rename it"):
        changed_files.decoded(b"a.py\0d/\xff.py\0")


def test_a_name_is_no_glob() -> None:
    changed_files.replace()
    assert FileLiteralSpec("a/zz[1]*?.py").to_glob() == "a/zz[[]1][*][?].py"
    assert FileLiteralSpec("a/b.py").to_glob() == "a/b.py"


def test_base_means_the_main_branch_whatever_it_is_called(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write("", "pants.toml", directory=".")
    workspace.write("1", "old.py")
    workspace.commit()
    workspace("branch", "-m", "main", "trunk")
    workspace("switch", "-q", "-c", "idea")
    workspace.write("2", "new.py")
    workspace.commit()
    assert workspace.changed("base:") == set()  # nobody says what the main branch is: HEAD
    workspace("config", "init.defaultBranch", "trunk")
    assert workspace.changed("base:") == {"d/new.py"}
    workspace("config", "--unset", "init.defaultBranch")
    workspace.write('[grug]\nbase_branch = "trunk"\n', "pants.toml", directory=".")
    assert workspace.changed("base:") == {"d/new.py", "pants.toml"}
    workspace.write('[grug]\nbase_branch = "gone"\n', "pants.toml", directory=".")
    with pytest.raises(GitBinaryException, match="there is no branch 'gone'"):
        workspace.changed("base:")
