"""The hook in real repositories; for Pants stands a script that writes down what it is asked."""

import os
import subprocess

import pytest

from tools.common.errors import ToolError
from tools.hooks import hook
from tools.hooks.install import install, main, place

PANTS = """\
#!/bin/sh
echo "$@" >>"$ASKED"
for word in "$@"; do
  case $word in --changed-since=list:*) tr '\\0' '\\n' <"${word#*:}" >>"$ASKED";; esac
done
env | grep -E '^GIT_(DIR|INDEX_FILE|PREFIX|WORK_TREE)=' >>"$ASKED"
[ -z "$FORMATS" ] || echo formatted >>"$FORMATS"
exit "${PANTS_EXIT:-0}"
"""


class Repository:
    def __init__(self, root, asked):
        self.root, self.asked = root, asked
        self.git("init", "-q", "-b", "main", ".")
        for name in ("user.name", "user.email"):
            self.git("config", name, "n")
        (root / "pants").write_text(PANTS)
        (root / "pants").chmod(0o755)
        (root / "pants.toml").write_text("")
        self.write("a.py", "a = 1\n")
        self.write("b.py", "b = 1\n")
        self.git("add", ".")
        self.git("commit", "-qm", "first")

    def run(self, *command, **more):
        environment = {**os.environ, "ASKED": str(self.asked), "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {"HOME": str(self.root.parent), "LC_ALL": "C", **more}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def git(self, *words, **more):
        done = self.run("git", *words, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, *words, **more):
        """(whether it was made, what was said, what Pants was asked)"""
        self.asked.write_text("")
        before = self.git("rev-parse", "HEAD")
        done = self.run("git", "commit", "-qm", "more", *words, **more)
        made = self.git("rev-parse", "HEAD") != before
        assert made == (done.returncode == 0)
        return made, done.stderr, self.asked.read_text().splitlines()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "work space").mkdir()
    made = Repository(tmp_path / "work space", tmp_path / "asked")
    monkeypatch.chdir(made.root)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return made


@pytest.fixture
def hooked(repository):
    assert main([]) == 0
    return repository


def test_what_is_staged_is_checked_and_nothing_else(hooked):
    hooked.write("a.py", "a = 2\n")
    hooked.write("new dir/é new.py", "n = 1\n")
    hooked.git("add", ".")
    hooked.write("b.py", "b = 2\n")
    hooked.write("untracked.py", "")
    made, said, asked = hooked.commit()
    assert made and not said
    assert asked[0].startswith("--unmatched-cli-globs=ignore --changed-since=list:")
    assert asked[0].endswith(" --changed-dependents=none fmt lint check")
    assert asked[1:] == ["a.py", "new dir/é new.py"]  # and none of git's variables


def test_commit_a_and_commit_of_paths_check_what_they_commit(hooked):
    hooked.write("a.py", "a = 2\n")
    hooked.write("b.py", "b = 2\n")
    assert hooked.commit("b.py")[2][1:] == ["b.py"]
    made, _, asked = hooked.commit("-a")
    assert made and asked[1:] == ["a.py"]


def test_a_fault_stops_the_commit(hooked):
    hooked.write("a.py", "a = 2\n")
    made, said, _ = hooked.commit("-a", PANTS_EXIT="3")
    assert not made and "not committed: mend what is said above" in said
    assert hooked.commit("-a", "--no-verify", PANTS_EXIT="3")[0]


def test_a_file_staged_in_part_stops_the_commit_before_anything_runs(hooked):
    hooked.write("a.py", "a = 2\n")
    hooked.write("b.py", "b = 2\n")
    hooked.git("add", ".")
    hooked.write("a.py", "a = 3\n")
    made, said, asked = hooked.commit()
    assert not made and not asked
    assert said == (
        "pre-commit: a.py is staged only in part: git add it, or stash the rest: "
        "git stash --keep-index\n"
    )
    hooked.git("stash", "-q", "--keep-index")
    assert hooked.commit()[0]


def test_what_was_formatted_is_left_for_the_eye(hooked):
    hooked.write("a.py", "a = 2\n")
    hooked.git("add", ".")
    hooked.write("b.py", "b = 2\n")
    made, said, _ = hooked.commit(FORMATS="a.py")
    assert not made and said.startswith("pre-commit: formatted a.py: look at that")
    hooked.git("add", "a.py")
    assert hooked.commit()[0] and hooked.git("show", "HEAD:a.py") == "a = 2\nformatted"
    assert hooked.git("status", "--porcelain") == "M b.py"


def test_commits_without_files_to_check_ask_nothing(hooked):
    assert hooked.commit("--allow-empty") == (True, "", [])
    hooked.git("rm", "-q", "b.py")
    assert hooked.commit() == (True, "", [])


def test_commits_without_pants_pass(hooked):
    hooked.git("rm", "-q", "--cached", "pants")
    (hooked.root / "pants").unlink()
    assert hooked.commit()[0]


def test_installed_twice_is_installed_once(hooked, capsys):
    path = hooked.root / ".git/hooks/pre-commit"
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert main([]) == 0 and "is there already" in capsys.readouterr().out
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert sorted(p.name for p in path.parent.glob("*pre-commit*") if "sample" not in p.name) == [
        "pre-commit"
    ]


def test_uninstalled_leaves_nothing(hooked, capsys):
    assert main(["--uninstall"]) == 0
    assert not (hooked.root / ".git/hooks/pre-commit").exists()
    assert main(["--uninstall"]) == 0 and "is not there" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--uninstall"]])
def test_another_hook_is_left_as_it_is(repository, words):
    path = repository.root / ".git/hooks/pre-commit"
    for found in ("#!/bin/sh\nexit 0\n", f"{hook.text()}echo mine\n", f"{hook.MARK}\n", ""):
        path.write_text(found)
        with pytest.raises(ToolError, match="is another hook, left as it is: "):
            main(words)
        assert path.read_text() == found
    path.unlink()
    (repository.root / "kept-elsewhere").write_text(hook.text())
    for target in ("nowhere", "../../kept-elsewhere"):
        path.symlink_to(target)
        with pytest.raises(ToolError, match="is another hook"):
            main(words)
        assert os.readlink(path) == target
        path.unlink()


def test_an_older_hook_of_ours_is_replaced(repository, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(hook, "_BODY", "\nexit 0\n")
        install(place())
    path = repository.root / ".git/hooks/pre-commit"
    assert path.read_text() != hook.text()
    assert "runs ./pants" in install(place()) and path.read_text() == hook.text()


def test_one_that_cannot_run_is_mended(hooked):
    path = hooked.root / ".git/hooks/pre-commit"
    path.chmod(0o644)
    install(place())
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("where", ["hooks", "../shared hooks"])
def test_hooks_path_is_respected(repository, where):
    repository.git("config", "core.hooksPath", where)
    assert main([]) == 0
    assert (repository.root / where / "pre-commit").is_file()
    assert not (repository.root / ".git/hooks/pre-commit").exists()
    repository.write("a.py", "a = 2\n")
    assert repository.commit("-a")[2][1:] == ["a.py"]


def test_worktrees_share_it(repository, monkeypatch):
    repository.git("worktree", "add", "-q", "../other", "-b", "other")
    monkeypatch.chdir(repository.root.parent / "other")
    assert main([]) == 0
    assert (repository.root / ".git/hooks/pre-commit").is_file()
    repository.root = repository.root.parent / "other"
    repository.write("a.py", "a = 2\n")
    made, _, asked = repository.commit("-a")
    assert made and asked[1:] == ["a.py"]


def test_installed_from_a_subdirectory(repository, monkeypatch):
    (repository.root / "sub").mkdir()
    monkeypatch.chdir(repository.root / "sub")
    assert main([]) == 0
    assert (repository.root / ".git/hooks/pre-commit").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "café.py",
        "two words.py",
        " first.py",
        "last ",
        "-dash.py",
        "'single'.py",
        "$HOME.py",
        "a;b&c|d.py",
        "~.py",
        "(a).py",
        "{a,b}.py",
        "a%20b=c,d.py",
    ],
)
def test_a_name_is_handed_on_as_it_is(hooked, name):
    hooked.write(f"d/{name}", "text\n")
    hooked.write(name, "text\n")
    hooked.git("add", ".")
    made, said, asked = hooked.commit()
    assert made and not said
    assert sorted(asked[1:]) == sorted([f"d/{name}", name])


ODD = ("a#b", "notes:1", "zz[1]", "what?", "all*", "!now", "@at", 'say "so"', "back\\slash", "a\nb")


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_pants_cannot_read_is_let_be_unless_it_is_code(hooked, name):
    """Pants has no address for it: it would read it as a glob, as a target, or not at all."""
    hooked.write(f"docs/{name}.md", "text\n")
    hooked.git("add", ".")
    assert hooked.commit() == (True, "", [])
    hooked.write(f"docs/{name}.md", "more\n")
    hooked.write("a.py", "a = 2\n")
    made, said, asked = hooked.commit("-a")
    assert made and not said and asked[1:] == ["a.py"]
    for code in (f"{name}.py", f"d/{name}.sh", f"{name}/BUILD"):
        hooked.write(code, "a = 1\n")
        hooked.git("add", ".")
        made, said, asked = hooked.commit()
        assert not made and not asked and said.count("\n") == 1 and said.endswith(": rename it\n")
        hooked.git("reset", "-q", "--hard")


@pytest.mark.parametrize("workspace", ["sub", "a b/it's"])
def test_a_workspace_in_a_subdirectory(repository, monkeypatch, workspace):
    """The hook runs, sees what lies in the workspace, and names it from there."""
    below = repository.root / workspace
    below.mkdir(parents=True)
    for name in ("pants", "pants.toml"):
        (repository.root / name).rename(below / name)
    repository.git("add", "--all")
    repository.git("commit", "-qm", "moved")
    monkeypatch.chdir(below)
    assert main([]) == 0
    repository.write("outside.py", "")
    repository.write(f"{workspace}/in é.py", "")
    repository.git("add", ".")
    made, _, asked = repository.commit()
    assert made and asked[1:] == ["in é.py"]
    repository.write("outside.py", "1")
    assert repository.commit("-a") == (True, "", [])
    repository.write(f"{workspace}/in é.py", "1")
    made, said, _ = repository.commit("-a", FORMATS="in é.py")
    assert not made and "formatted in é.py" in said
    assert "is there already" in install(place())
    assert main(["--uninstall"]) == 0


@pytest.mark.parametrize(
    "setting",
    ["core.quotePath=true", "diff.relative=true", "color.ui=always", "diff.external=x"],
)
def test_settings_of_a_user_change_nothing(hooked, setting):
    hooked.git("config", *setting.split("="))
    hooked.write("d/é.py", "n = 1\n")
    hooked.git("add", ".")
    made, _, asked = hooked.commit()
    assert made and asked[1:] == ["d/é.py"]


def test_outside_of_git_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ToolError, match="run this in the workspace's repository"):
        main([])
