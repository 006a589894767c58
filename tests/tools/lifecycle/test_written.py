"""Each command says how to commit what it wrote, all of it and no more, and stages it if asked."""

import re
import subprocess

import pytest

from tests.tools.lifecycle.conftest import BASE
from tests.tools.runs.conftest import Workspace as Runs
from tests.tools.runs.conftest import rows
from tools.runs.record import record

COPY = "experiments/grug/relu"


@pytest.fixture
def branch(copied, tmp_path_factory):
    """On a branch: a copy that changed and whose run was recorded, but not committed; base moves.

    A file of the user's own lies beside them.
    """
    copied.git("switch", "-q", "-c", "idea")
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'relu'\n")
    copied.commit("relu is other")
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'fixed'\n")
    copied.commit("base moves")
    sources = {"model.py": (copied.root / COPY / "model.py").read_bytes()}
    runs = Runs(tmp_path_factory.mktemp("runs"))
    run = runs.write_run("relu-0", rows(10), record={"variant": "relu"}, sources=sources)
    record([run], copied.root)
    copied.write("mine.txt", "mine\n")
    return copied


COMMANDS = {
    "fork": ("fork", COPY, "--name=gelu", "--bucket=MLP/activation", "--purpose=why"),
    "drift apply": ("drift", "--apply=HEAD", "relu"),
    "drift decline": ("drift", "--decline=HEAD", "--reason=no need", "relu"),
    "drift synced": ("drift", "--synced=HEAD", "relu"),
    "upstream": ("upstream", "relu", "--verdict=it pays"),
    "retire": ("retire", "relu", "--verdict=it does not"),
    "rename": ("rename", "relu", "--to=wide_mlp"),
}


@pytest.mark.parametrize("how", ["as told", "staged"])
@pytest.mark.parametrize("name", COMMANDS)
def test_all_of_it_and_no_more(branch, capsys, name, how):
    if name == "rename":
        branch.git("add", "docs")
        branch.git("commit", "-q", "-m", "the run")
    stages = ("--stage",) if how == "staged" else ()
    assert branch.run(*COMMANDS[name], *stages) == 0
    (line,) = [o for o in capsys.readouterr().out.splitlines() if o.startswith("next: ")]
    add = re.search(r"git (add --all [^&]+) && git commit", line)
    assert bool(add) == (how == "as told") and "git commit" in line
    if add:
        branch.git(*add[1].split())
    branch.git("commit", "-q", "-m", name)
    status = branch.git("status", "--short", "--untracked-files=all").splitlines()
    left = [line.split()[1] for line in status]
    records = [path for path in left if path.startswith("docs/reports/")]
    assert [path for path in left if path not in records] == ["mine.txt"]
    # What `record` wrote goes with the end of the variant, which quotes it.
    assert bool(records) == (name in ("fork", "drift apply", "drift decline", "drift synced"))
    assert all("/runs/" in path or "/sources/" in path or "relu.md" in path for path in records)


def test_what_a_person_resolved_is_named(branch, capsys):
    branch.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'other'\n")
    branch.git("commit", "-q", "-m", "base moves", "--", BASE)
    assert branch.run("upstream", "relu", "--verdict=it pays") == 1
    assert "next: resolve them" in capsys.readouterr().out
    branch.write(f"{BASE}/model.py", branch.read(f"{COPY}/model.py"))
    assert branch.run("upstream", "relu", "--resolved", "--verdict=it pays", "--stage") == 0
    assert capsys.readouterr().out.endswith("then git commit\n")
    branch.git("commit", "-q", "-m", "upstream")
    assert branch.git("status", "--short") == "?? mine.txt"


@pytest.mark.parametrize("name", ["drift apply", "upstream"])
def test_conflicts_are_not_staged(branch, capsys, name):
    """`git diff` shows them, as the message says; git would take them as resolved."""
    branch.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'other'\n")
    branch.git("commit", "-q", "-m", "base moves", "--", BASE)
    assert branch.run(*COMMANDS[name], "--stage") == 1
    assert "next: resolve " in capsys.readouterr().out
    assert branch.git("diff", "--cached", "--name-only") == ""
    assert "<<<<<<<" in branch.git("diff")


def test_names_are_quoted_for_a_shell(branch, capsys):
    branch.git("add", "docs")
    branch.write("docs/a b's.md", f"{COPY}/model.py\n")
    branch.git("add", "docs")
    branch.git("commit", "-q", "-m", "the run, and a page")
    assert branch.run("rename", "relu", "--to=wide_mlp") == 0
    (line,) = [o for o in capsys.readouterr().out.splitlines() if o.startswith("next: ")]
    command = line.partition(", then ")[2].removesuffix(" && git commit")
    subprocess.run(["sh", "-c", command], cwd=branch.root, check=True)
    branch.git("commit", "-q", "-m", "rename")
    assert branch.git("status", "--short") == "?? mine.txt"


def test_relink_stages_what_it_renews(branch, capsys):
    branch.git("rm", "-q", "-r", "--cached", "--ignore-unmatch", "docs/reports/sources")
    branch.git("add", "docs")
    branch.git("commit", "-q", "-m", "the run")
    branch.git("switch", "-q", "main")
    branch.git("merge", "-q", "--no-ff", "-m", "the idea", "idea")
    assert branch.run("relink", "--stage") == 0
    assert "next: git commit" in capsys.readouterr().out.splitlines()
    branch.git("commit", "-q", "-m", "relink")
    assert branch.git("status", "--short") == "?? mine.txt"
