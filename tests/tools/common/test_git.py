"""What git is asked has one answer, whatever a user or the caller's environment has set."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.git import Git
from tools.common.git import _environment as environment

# Settings and variables that change what git prints, or which repository it speaks of.
HOSTILE = """
[user]
    name = n
    email = e@localhost
[color]
    ui = always
    grep = always
    status = always
[core]
    quotePath = true
    pager = false
[grep]
    fullName = true
    lineNumber = true
[log]
    showSignature = true
    follow = true
[merge]
    conflictStyle = diff3
[status]
    short = true
    relativePaths = true
[submodule]
    recurse = true
"""
ODD = "pä\nth.txt"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a workspace in `inner/`, of a user who has set much."""
    (tmp_path / "config").write_text(HOSTILE)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "repository"
    (root / "inner/sub").mkdir(parents=True)
    (root / "inner" / ODD).write_text("needle\n")
    (root / "inner/sub/run").write_text("needle\n")
    (root / "inner/sub/run").chmod(0o755)
    (root / "inner/link").symlink_to("sub/run")
    (root / "inner/sub/bytes").write_bytes(b"needle\0")
    shell(root, "init", "--quiet")
    shell(root, "add", "--all")
    shell(root, "-c", "commit.gpgsign=false", "commit", "--quiet", "-m", "one")
    # As a git hook of another repository has it.
    (tmp_path / "other").mkdir()
    shell(tmp_path / "other", "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    environment.cache_clear()
    yield root
    environment.cache_clear()


def shell(root, *arguments):
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_tree_is_what_was_committed(repository):
    git = Git(repository / "inner")
    head = git.commit("HEAD")
    assert head and len(head) == 40
    (repository / "inner/sub/run").write_text("edited since")
    assert git.tree(head, "inner") == {
        "link": File(b"sub/run", "link"),
        ODD: File(b"needle\n"),
        "sub/bytes": File(b"needle\0"),
        "sub/run": File(b"needle\n", "executable"),
    }
    assert git.tree("HEAD", "inner/sub/run") == {"run": File(b"needle\n")}
    assert git.tree("HEAD", "nowhere") is None
    elsewhere = Git(git_dir=repository / ".git")
    assert elsewhere.tree("HEAD", "inner") == git.tree("HEAD", "inner")


def test_names_are_as_they_are_and_from_the_place_that_asks(repository):
    git = Git(repository / "inner")
    assert git.files_with(["needle", "--not-an-option"]) == [ODD, "sub/run"]
    assert git.files_with(["nothing has this"]) == []
    assert set(git.names("ls-files", "-z")) == {ODD, "link", "sub/bytes", "sub/run"}
    (repository / "inner" / ODD).write_text("edited")
    status = git.names("status", "--porcelain", "-z", "--untracked-files=all")
    assert status == [f" M inner/{ODD}"]
    # A path is a path, never a pattern.
    assert git.names("ls-files", "-z", "--", "sub/*") == []


def test_a_conflict_looks_the_same_for_everyone(repository):
    for name, text in (("ours", "a\n"), ("base", "b\n"), ("theirs", "c\n")):
        (repository / name).write_text(text)
    result = Git(repository).run("merge-file", "-p", "-q", "ours", "base", "theirs")
    assert result.stdout == b"<<<<<<< ours\na\n=======\nc\n>>>>>>> theirs\n"


def test_what_git_does_not_know(repository, tmp_path):
    git = Git(repository)
    head = git.commit("HEAD") or ""
    tree = git.ask("rev-parse", "HEAD^{tree}").strip()
    assert git.known_commits({head, head[:8], tree, "deadbeef"}) == {head: head, head[:8]: head}
    assert [git.commit(name) for name in ("", "--all", "deadbeef", tree)] == [None] * 4
    blob = git.ask("rev-parse", "HEAD:inner/sub/run").strip()
    assert git.blobs([blob, "0" * 40, blob]) == {blob: b"needle\n"}
    with pytest.raises(ToolError, match="^git rev-list: fatal: "):
        git.ask("rev-list", "nowhere")
    with pytest.raises(ToolError, match="git says .fatal: not a git repository"):
        Git(git_dir=tmp_path).known_commits({"deadbeef"})


def test_a_file_that_the_repository_lacks_is_named(repository):
    git = Git(repository, fetches=False)
    blob = git.ask("rev-parse", "HEAD:inner/sub/bytes").strip()
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(ToolError, match="^HEAD:inner/sub/bytes: git lacks its content: fetch it"):
        git.tree("HEAD", "inner")


def test_no_git_is_one_line(repository, monkeypatch):
    environment()
    monkeypatch.setenv("PATH", "/nonexistent")
    environment.cache_clear()
    with pytest.raises(ToolError, match="^git cannot be run .*: install it$"):
        Git(repository).ask("rev-parse", "HEAD")


# -- the main branch -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloner:
    """Makes clones of a repository, each in a directory of its own."""

    directory: Path
    origin: Git

    def __call__(self, *options: str) -> Git:
        target = self.directory / f"clone{len(list(self.directory.iterdir()))}"
        shell(self.directory, "clone", "-q", *options, self.origin.root.as_uri(), str(target))
        return Git(target)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with a branch beside `trunk`, and a way to clone it; no user's settings."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("PANTS_GRUG_BASE_BRANCH", raising=False)
    root = tmp_path / "origin"
    root.mkdir()
    for command in ("init -q -b trunk", "config user.name n", "config user.email e@localhost"):
        shell(root, *command.split())
    for name, branch in (("one", "trunk"), ("two", "side")):
        shell(root, "checkout", "-q", "-B", branch)
        (root / name).write_text(name)
        shell(root, "add", "--all")
        shell(root, "-c", "commit.gpgsign=false", "commit", "-q", "-m", name)
    shell(root, "checkout", "-q", "trunk")

    return Cloner(tmp_path, Git(root))


def test_the_main_branch_is_what_origin_says_then_what_is_usual(clone):
    ours = clone()
    assert ours.main_branches() == ("trunk", "origin/trunk")
    shell(ours.root, "checkout", "-q", "--detach")
    shell(ours.root, "branch", "-q", "-D", "trunk")
    assert ours.main() == "origin/trunk"
    shell(ours.root, "remote", "set-head", "origin", "--delete")
    assert ours.main() == "HEAD"  # nothing is called main, and nobody says what is
    shell(ours.root, "branch", "-q", "master", "HEAD")
    assert ours.main() == "master"
    shell(ours.root, "config", "init.defaultBranch", "trunk")
    assert ours.main() == "origin/trunk"


def test_one_option_names_the_main_branch(clone, monkeypatch):
    ours = clone()
    (ours.root / "pants.toml").write_text('[grug]\nbase_branch = "origin/side"\n')
    assert ours.main() == "origin/side"
    monkeypatch.setenv("PANTS_GRUG_BASE_BRANCH", "trunk")
    assert ours.main() == "trunk"
    monkeypatch.setenv("PANTS_GRUG_BASE_BRANCH", "")
    (ours.root / "pants.toml").write_text("[grug]\nbase_branch = 3\n")
    with pytest.raises(ToolError, match="write a branch's name"):
        ours.main()


def test_what_is_on_main_is_what_its_branch_or_origins_reaches(clone):
    side = clone.origin.commit("side")
    ours = clone()
    assert ours.is_on_main("HEAD")
    assert ours.commit(side)
    assert not ours.is_on_main(side)
    assert not ours.is_on_main("0" * 40)
    shell(clone.origin.root, "merge", "-q", "side")
    shell(ours.root, "fetch", "-q")
    assert ours.is_on_main(side)  # although this clone's own trunk lags behind
    assert ours.unreachable([side, ours.commit("trunk")], "trunk") == {side}


@pytest.mark.parametrize("options", [("--depth=1",), ("--filter=blob:none",)])
def test_kinds_of_clones_know_their_main_branch(clone, options):
    shell(clone.origin.root, "config", "uploadpack.allowFilter", "true")
    assert clone(*options).main() == "trunk"
    assert clone(*options).is_on_main("HEAD")
