"""What a branch recorded holds in a fresh clone after its squash merge."""

import re
import shutil
import subprocess

import pytest

from tests.tools.lifecycle.conftest import BASE, Workspace
from tests.tools.runs.conftest import Workspace as Runs
from tests.tools.runs.conftest import rows
from tools.common.errors import ToolError
from tools.common.repository import Repository
from tools.common.sources import is_source
from tools.ledger import kept_trees, pins
from tools.ledger.files import ENTRIES
from tools.ledger.ledger import load_ledger
from tools.runs import check_ledger, run_summary
from tools.runs.record import record

RELU, GELU, SILU = (f"experiments/grug/{name}" for name in ("relu", "gelu", "silu"))
KEPT = "docs/reports/sources"


def pinned(text: str) -> pins.Pin:
    pin = pins.parse(text)
    assert pin
    return pin


def entries(workspace):
    return {entry.name: entry for entry in load_ledger(workspace.root)}


def write_run(workspace, tmp_path, name: str, variant: str):
    """A run directory of what a variant's directory holds now."""
    directory = workspace.root / f"experiments/grug/{variant}"
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    sources = {name: p.read_bytes() for name, p in files.items() if is_source(name)}
    commit = workspace.git("rev-parse", "HEAD")
    runs = Runs(tmp_path / f"runs of {name}")
    return runs.write_run(
        name, rows(10), record={"variant": variant}, sources=sources, commit=commit
    )


@pytest.fixture
def branch(workspace, tmp_path_factory):
    """A branch on which one variant was recorded and retired, one upstreamed, one forked later."""
    elsewhere = tmp_path_factory.mktemp("runs")
    workspace.write("docs/notes.md", "notes\n")
    workspace.commit("more")
    workspace.git("switch", "-q", "-c", "idea")
    assert workspace.fork("relu") == 0
    workspace.commit("fork relu")
    workspace.edit(f"{RELU}/model.py", "V30 = 30\n", "V30 = 'relu'\n")
    workspace.commit("relu is other")
    record([write_run(workspace, elsewhere, "relu-0", "relu")], workspace.root)
    workspace.commit("record relu")
    assert workspace.fork("gelu") == 0
    workspace.commit("fork gelu")
    workspace.edit(f"{GELU}/model.py", "V50 = 50\n", "V50 = 'gelu'\n")
    workspace.commit("gelu is other")
    assert workspace.run("upstream", "gelu", "--verdict=it pays") == 0
    workspace.commit("upstream gelu")
    assert workspace.fork("silu") == 0
    workspace.commit("fork silu")
    workspace.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'since'\n")
    workspace.commit("base goes on")
    # Of base as silu was copied from it, a squash merge keeps nothing.
    assert "only this branch has" in "\n".join(workspace.faults())
    assert workspace.run("relink") == 0
    assert workspace.faults() == []
    workspace.commit("relink")
    assert workspace.run("retire", "relu", "--verdict=no") == 0
    workspace.commit("retire relu")
    assert workspace.faults() == []
    return workspace


def clone_of(workspace, path, *options: str) -> Workspace:
    """A fresh clone: no reflog, and no object that no branch has."""
    command = ["git", "clone", "-q", *options, workspace.root.as_uri(), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return Workspace.__new__(Workspace).at(path)


def squash(workspace, *, keep_branch: bool = False) -> None:
    workspace.git("switch", "-q", "main")
    workspace.git("merge", "-q", "--squash", "idea")
    workspace.git("commit", "-q", "-m", "the idea, squashed")
    if not keep_branch:
        workspace.git("branch", "-q", "-D", "idea")


def test_a_squashed_branch_holds_in_a_fresh_clone(branch, tmp_path_factory, capsys):
    relu = pins.files(
        Repository(branch.root), pinned(entries(branch)["relu"].last_known_good), RELU
    )
    before = entries(branch)
    squash(branch)
    clone = clone_of(branch, tmp_path_factory.mktemp("clone") / "clone")
    for name, key in (("silu", "forked at"), ("relu", "last known-good")):
        assert clone.git_fails("cat-file", "-e", before[name].fields[key].split()[0])
    assert clone.faults() == []
    assert clone.run("relink") == 0
    out = capsys.readouterr().out
    assert "relu: last known-good: tree " in out and "next: git add --all " in out
    assert clone.faults() == []
    clone.commit("relink")
    assert clone.run("relink") == 0
    assert "nothing to do" in capsys.readouterr().out
    repo, now = Repository(clone.root), entries(clone)
    squashed = clone.git("rev-parse", "HEAD~1")[:12]
    assert now["gelu"].introduced.startswith(squashed)
    assert now["gelu"].last_known_good.startswith(f"{squashed} tree ")
    assert now["relu"].introduced == "pending"  # no commit of main had it
    assert pins.files(repo, pinned(now["relu"].last_known_good), RELU) == relu
    assert (
        pins.files(repo, pinned(now["relu"].forked_at), BASE)["model.py"].content.count(b"10") > 0
    )
    assert clone.run("drift") == 0
    out = capsys.readouterr().out
    assert "V10" not in out and f"silu: lacks 1 commit of base since {now['silu'].forked_at}" in out
    clone.edit(f"{SILU}/model.py", "V20 = 20\n", "V20 = 'silu'\n")
    clone.commit("silu is other")
    assert clone.run("upstream", "silu", "--verdict=it pays") == 0
    assert clone.git("diff", "--stat", "--", BASE).endswith("1 insertion(+), 1 deletion(-)")


def test_what_a_merge_brought_is_kept_no_longer(branch, capsys):
    assert len(list((branch.root / KEPT).glob("*.json"))) == 2
    branch.git("switch", "-q", "main")
    branch.git("merge", "-q", "--no-ff", "-m", "the idea", "idea")
    assert branch.faults() == []
    assert branch.run("relink") == 0
    assert f"{KEPT}/" in capsys.readouterr().out
    assert not (branch.root / KEPT).exists()
    assert branch.faults() == []
    branch.commit("relink")
    assert branch.run("relink") == 0
    assert capsys.readouterr().out == "nothing to do\n"


def test_records_of_older_form_are_mended_where_the_branch_still_is(
    branch, tmp_path_factory, capsys
):
    """As the ledger was written before it said trees: commits alone, nothing kept."""
    for path in (branch.root / ENTRIES).glob("*.md"):
        path.write_text(re.sub(r" tree [0-9a-f]{12}", "", path.read_text()))
    shutil.rmtree(branch.root / KEPT)
    branch.commit("as it was written before")
    squash(branch, keep_branch=True)
    clone = clone_of(branch, tmp_path_factory.mktemp("clone") / "clone", "--single-branch")
    found = "\n".join(clone.faults())
    assert "relu: last known-good: git knows no commit " in found and "./pants relink" in found
    assert "docs/reports/runs/relu/relu-0.json:1: git: git knows no commit " in found
    assert clone.run("relink") == 1  # it has the content of none of them
    capsys.readouterr()
    assert branch.faults() != []
    assert branch.run("relink") == 0
    assert branch.faults() == []
    branch.commit("relink")
    clone = clone_of(branch, tmp_path_factory.mktemp("clone") / "clone", "--single-branch")
    assert clone.faults() == []


def test_what_is_kept_is_verified(branch):
    repo, pin = Repository(branch.root), pinned(entries(branch)["relu"].last_known_good)
    place = branch.root / kept_trees.place(pin.tree)
    text = place.read_text()
    for bad, message in (
        (text.replace("'relu'", "'mine'"), "is not what was kept"),
        (text.replace('"BUILD"', '"../BUILD"'), "is no file of a variant"),
        (text.replace('"BUILD"', '"/BUILD"'), "is no file of a variant"),
        (text.replace('"BUILD"', '".git/BUILD"'), "is no file of a variant"),
        ("{}", "is no directory that this tool keeps"),
        ("{", "is no JSON"),
    ):
        assert bad != text
        place.write_text(bad)
        with pytest.raises(ToolError, match=message):
            kept_trees.load(repo, pin.tree)


def test_a_commit_and_a_tree_that_do_not_match(copied):
    pin = pinned(entries(copied)["relu"].forked_at)
    copied.edit(f"{ENTRIES}/relu.md", str(pin), f"{pin.commit} tree {'0' * 12}")
    (fault,) = check_ledger.check(copied.root)
    assert f"{BASE} in {pin.commit} is tree {pin.tree}, not {'0' * 12}: correct it" in fault


def test_a_watermark_of_a_squashed_branch(copied, capsys):
    """What was ported on the branch counts as looked at after the squash, by content."""
    copied.git("switch", "-q", "-c", "idea")
    for number in (10, 30):
        copied.edit(f"{BASE}/model.py", f"V{number} = {number}\n", f"V{number} = 'new'\n")
        commit = copied.commit(f"change {number}")
        assert copied.run("drift", "--apply", commit, "relu") == 0
        copied.commit("port")
    assert copied.entry().synced.startswith(commit[:12]) and copied.faults() == []
    squash(copied)
    copied.git("reflog", "expire", "--expire=now", "--all")
    copied.git("gc", "-q", "--prune=now")
    assert copied.faults() == []
    assert copied.run("relink") == 0
    assert copied.entry().synced.startswith(copied.git("rev-parse", "HEAD")[:12])
    assert copied.faults() == []
    capsys.readouterr()
    assert copied.run("drift") == 0
    assert "relu: lacks nothing of base since" in capsys.readouterr().out
    # One that nothing has any more is no reason to stop: the fork point takes its place.
    good = copied.entry().synced
    copied.edit(f"{ENTRIES}/relu.md", good, f"{'0' * 12} tree {'1' * 12}")
    assert copied.run("drift") == 0
    (fault,) = copied.faults()
    assert "relu: synced: no commit that is left has the content" in fault and "relink" in fault
    assert copied.run("relink") == 0
    assert copied.faults() == [] and copied.entry().synced == copied.entry().forked_at


def test_runs_from_before_a_rename(workspace, tmp_path_factory):
    """What ran is found where the variant's directory was then."""
    elsewhere = tmp_path_factory.mktemp("runs")
    workspace.git("switch", "-q", "-c", "idea")
    assert workspace.fork("relu") == 0
    workspace.commit("fork relu")
    first = write_run(workspace, elsewhere, "relu-0", "relu")
    record([first], workspace.root)
    committed = workspace.commit("record relu")
    second = write_run(workspace, elsewhere, "relu-1", "relu")
    assert workspace.run("rename", "relu", "--to=wide_mlp") == 0
    workspace.commit("rename relu")
    assert workspace.faults() == []
    record([second], workspace.root)
    runs, _ = run_summary.load_all(workspace.root)
    assert [run.git["dirty"] for run in runs] == [False, False]
    assert runs[1].git["commit"] == committed
    workspace.commit("record what ran before the rename")
    assert workspace.faults() == []
    workspace.git("switch", "-q", "main")
    workspace.git("merge", "-q", "--no-ff", "-m", "the idea", "idea")
    assert any((workspace.root / KEPT).iterdir())
    assert workspace.run("relink") == 0
    assert not (workspace.root / KEPT).exists() and workspace.faults() == []
