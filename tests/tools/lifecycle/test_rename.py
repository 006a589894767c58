"""A variant under another name: what was recorded of the old one is still its own."""

import json

import pytest

from tests.tools.lifecycle.conftest import BASE, FILES
from tools.ledger import files
from tools.ledger.ledger import load_ledger
from tools.runs.record import recorded_as

OLD, NEW = "experiments/grug/relu", "experiments/grug/wide_mlp"
SUMMARY = """\
{
"schema_version": 1,
"variant": "relu",
"run": "first",
"config": {"variant": "relu"}
}
"""


def rename(workspace, old: str = "relu", new: str = "wide_mlp") -> int:
    return workspace.run("rename", old, f"--to={new}")


def test_summaries_that_are_compared_with_it_name_it_anew(copied):
    """A person named relu as what the runs of another are compared with."""
    place = "docs/reports/runs/gelu/first.json"
    origin = '"origin": {"at":"run first","by":"named","digests":[],"name":"relu"}'
    others = SUMMARY.replace('"variant": "relu"', '"variant": "gelu"', 1)
    copied.write(place, others.replace("}\n}", f"}},\n{origin}\n}}"))
    before = copied.read(place)
    copied.commit("gelu, compared with relu")
    assert rename(copied) == 0
    assert copied.read(place) == before.replace('"name":"relu"', '"name":"wide_mlp"') != before


def test_all_of_it_gets_the_new_name_and_git_revert_takes_it_back(copied, capsys):
    copied.write("docs/reports/runs/relu/first.json", SUMMARY)
    notes = copied.read(files.entry_file("relu")) + "\n### Notes\n\nrelu came first.\n"
    copied.write(files.entry_file("relu"), notes)
    copied.write(
        "docs/page.md", f"See {OLD}/model.py: `./pants run launch -- relu`; relu_2, {OLD}2.\n"
    )
    copied.write("tests/test_it.py", "from experiments.grug.relu import data\n")
    copied.write("docs/reports/old.md", f"{OLD}\n")
    copied.commit("relu, recorded and named")
    copied.write(f"{OLD}/__pycache__/x.pyc", "built")
    copied.write("dist/bundles/relu-cpu/x", "built")
    tracked = copied.git("ls-files", "-s")
    origin = copied.entry()
    assert rename(copied) == 0
    out = capsys.readouterr().out
    assert not (copied.root / OLD).exists() and not (copied.root / "dist/bundles/relu-cpu").exists()
    model = FILES["model.py"].replace(b"grug/base/", b"grug/wide_mlp/")
    model = model.replace(b"from experiments.grug.base", b"from experiments.grug.wide_mlp")
    assert (copied.root / NEW / "model.py").read_bytes() == model
    assert (copied.root / NEW / "run").stat().st_mode & 0o111 == 0o111
    assert [entry.name for entry in load_ledger(copied.root)] == ["base", "wide_mlp"]
    entry = copied.entry("wide_mlp")
    assert entry.fields == origin.fields | {"path": NEW, "renamed from": "relu"}
    assert entry.notes == "relu came first." and entry.earlier_names == ("relu",)
    summary = json.loads(copied.read("docs/reports/runs/wide_mlp/first.json"))
    assert (summary["variant"], summary["config"]) == ("wide_mlp", {"variant": "relu"})
    assert not (copied.root / "docs/reports/runs/relu").exists()
    assert copied.read("docs/page.md") == (
        f"See {NEW}/model.py: `./pants run launch -- wide_mlp`; relu_2, {OLD}2.\n"
    )
    assert copied.read("tests/test_it.py") == "from experiments.grug.wide_mlp import data\n"
    assert copied.read("docs/reports/old.md") == f"{OLD}\n"
    (command,) = [line for line in out.splitlines() if line.startswith("next: ")]
    copied.git(*command.partition("then git ")[2].removesuffix(" && git commit").split())
    copied.git("commit", "-q", "-m", "rename relu")
    assert copied.git("status", "-s") == ""
    copied.git("revert", "--no-edit", "HEAD")
    assert copied.git("ls-files", "-s") == tracked


def test_what_follows_works_as_before(copied, capsys):
    """Drift, a merge into the origin and the check know it by its new name."""
    copied.edit(f"{OLD}/model.py", "V30 = 30\n", "V30 = 'better'\n")
    copied.commit("an edit")
    assert rename(copied) == 0
    copied.commit("rename relu")
    assert copied.faults() == []
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'fixed'\n")
    fix = copied.commit("a fix")
    assert copied.run("drift", "--apply", fix, "wide_mlp") == 0
    copied.commit("ported")
    assert copied.run("upstream", "wide_mlp", "--verdict=it pays") == 0
    assert "V30 = 'better'" in copied.read(f"{BASE}/model.py")
    copied.commit("upstream wide_mlp")
    assert copied.faults() == []


def test_runs_of_the_old_names_are_its_own(copied):
    assert rename(copied) == 0
    copied.commit("rename relu")
    assert rename(copied, "wide_mlp", "wider") == 0
    copied.commit("rename it again")
    entries = load_ledger(copied.root)
    assert copied.entry("wider").renamed_from == "relu, wide_mlp"
    for name in ("relu", "wide_mlp", "wider"):
        assert recorded_as(name, entries, "run").name == "wider"
    # And no other variant takes these names.
    for name in ("relu", "wide_mlp"):
        assert copied.fork(name) == 1


def test_an_entry_of_the_older_form_gets_a_file(copied):
    text = copied.read(files.entry_file("relu"))
    head = copied.read(files.LEDGER)
    (copied.root / files.entry_file("relu")).unlink()
    before, _, after = head.partition("## base")
    copied.write(files.LEDGER, f"{before}#{text}\n## base{after}")
    copied.commit("as it was once")
    assert rename(copied) == 0
    assert copied.read(files.LEDGER) == head
    assert copied.entry("wide_mlp").path == NEW and copied.entry("base").path == BASE


@pytest.mark.parametrize(
    ("old", "new", "dirty", "message"),
    [
        ("gone", "wide_mlp", "", "gone: is not in the ledger"),
        ("base", "wide_mlp", "", "base: is the template"),
        ("relu", "Wide", "", "cannot name a variant"),
        ("relu", "l" * 61, "", "is too long"),
        ("relu", "base", "", "base: is taken by"),
        ("relu", "relu", "", "relu: is taken by"),
        ("relu", "wide_mlp", f"{OLD}/model.py", "not committed"),
        ("relu", "wide_mlp", f"{NEW}/model.py", "wide_mlp: is taken by experiments/grug/wide_mlp"),
        ("relu", "wide_mlp", "tools/locks/relu.lock", "and its resolve bear its name"),
    ],
)
def test_refusals(copied, capsys, old, new, dirty, message):
    if dirty:
        copied.write(dirty, "X = 1\n")
    before = copied.state()
    assert rename(copied, old, new) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and copied.state() == before


def test_an_origin_stays(copied, capsys):
    assert copied.fork("gelu", OLD) == 0
    copied.commit("a copy of the copy")
    assert rename(copied) == 1
    assert "relu: is the origin of gelu" in capsys.readouterr().err


def test_a_name_of_60_letters_through_the_chain(workspace):
    """fork, drift, rename, upstream and retire."""
    first, second = "f" * 60, "s" * 60
    assert workspace.fork(first) == 0
    workspace.commit("fork")
    workspace.edit(f"experiments/grug/{first}/model.py", "V30 = 30\n", "V30 = 'better'\n")
    workspace.commit("edit")
    assert workspace.run("drift", first) == 0
    assert rename(workspace, first, second) == 0
    workspace.commit("rename")
    assert workspace.fork("x" * 60, f"experiments/grug/{second}") == 0
    workspace.commit("fork of a fork")
    assert workspace.run("upstream", second, "--verdict=it pays") == 0
    workspace.commit("upstream")
    assert workspace.run("retire", "x" * 60, "--verdict=none", "--keep-mentions") == 0
    workspace.commit("retire")
    assert workspace.faults() == []
