"""A variant's change, merged into its origin."""

import pytest

from tests.tools.lifecycle.conftest import BASE

COPY = "experiments/grug/relu"
VERDICT = ("--verdict", "it pays")


def entry(workspace):
    return workspace.entry()


def test_a_change_is_merged_and_marked(copied, capsys):
    brought = copied.git("rev-parse", "HEAD")
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'better'\nX = 1\n")
    copied.edit(f"{COPY}/model.py", "import data\n", "import data, more\n")
    copied.write(f"{COPY}/more.py", "NAME = 'experiments/grug/relu'\n")
    copied.git("rm", "-q", f"{COPY}/run")
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'since'\n")
    head = copied.commit("both go on")
    ledger = copied.ledger()
    assert copied.run("upstream", COPY, *VERDICT) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{BASE}: 3 files changed by relu, not committed"
    assert out[1] == "relu against base: +5 -3 lines before, +1 -1 lines after"
    text = copied.read(f"{BASE}/model.py")
    for part in ("V30 = 'better'\nX = 1\n", "V10 = 'since'\n", "grug.base import data, more\n"):
        assert part in text
    assert "relu" not in text
    assert copied.read(f"{BASE}/more.py") == "NAME = 'experiments/grug/base'\n"
    assert not (copied.root / BASE / "run").exists()
    assert copied.git("diff", "--cached") == ""
    now = entry(copied)
    assert (now.status, now.superseded_by) == ("superseded", "base")
    assert [v.partition(" tree ")[0] for v in (now.last_known_good, now.introduced)] == [
        head[:12],
        brought[:12],
    ]
    tree = copied.git("rev-parse", f"{head}:{COPY}")
    assert now.last_known_good == f"{head[:12]} tree {tree[:12]}"
    assert copied.ledger().startswith(ledger.partition("## relu")[0])
    assert copied.faults() == []
    copied.commit("upstream relu")
    assert copied.faults() == []
    assert copied.run("upstream", "relu", *VERDICT) == 1
    assert "relu: is superseded: only an active one is merged" in capsys.readouterr().err


def test_conflicts_are_left_marked_by_hand(copied, capsys):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'mine'\n")
    copied.edit(f"{COPY}/model.py", "V50 = 50\n", "V50 = 'mine'\n")
    copied.write(f"{COPY}/run", "mine")
    copied.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'since'\n")
    copied.git("rm", "-q", f"{BASE}/run")
    copied.commit()
    ledger = copied.ledger()
    assert copied.run("upstream", "relu", *VERDICT) == 1
    out = capsys.readouterr().out
    assert f"{BASE}/model.py: 1 conflict\n" in out
    assert f"{BASE}/run: was edited in the variant, and deleted in its origin\n" in out
    text = copied.read(f"{BASE}/model.py")
    assert f"<<<<<<< {BASE}\nV30 = 'since'\n" in text and f">>>>>>> {COPY}\n" in text
    assert "V50 = 'mine'\n" in text
    assert copied.ledger() == ledger and entry(copied).status == "active"
    assert copied.run("upstream", "relu", "--resolved", *VERDICT) == 1
    assert f"{BASE}/model.py: still holds conflict markers" in capsys.readouterr().err
    copied.write(f"{BASE}/model.py", "X = 1\n")
    assert copied.run("upstream", "relu", "--resolved", *VERDICT) == 0
    assert entry(copied).status == "superseded" and copied.faults() == []


def test_what_was_ported_before_is_no_conflict(copied, capsys):
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'fixed'\n")
    fix = copied.commit("a fix")
    assert copied.run("drift", "--apply", fix) == 0
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'better'\n")
    copied.commit()
    assert copied.run("upstream", "relu", *VERDICT) == 0
    assert copied.git("diff", "--stat", "--", BASE).endswith("1 insertion(+), 1 deletion(-)")


@pytest.mark.parametrize(
    "given, dirty, message",
    [
        ("gone", "", "gone: is not in the ledger"),
        ("base", "", "base: was copied from nothing"),
        ("relu", "", "relu: changes nothing of base"),
        ("relu", f"{BASE}/model.py", f"{BASE}/model.py: not committed"),
        ("relu", f"{BASE}/new.py", f"{BASE}/new.py: not committed"),
        ("relu", f"{COPY}/model.py", f"{COPY}/model.py: not committed"),
    ],
)
def test_refusals(copied, capsys, given, dirty, message):
    if dirty:
        copied.write(dirty, "X = 1\n")
    before = copied.state()
    assert copied.run("upstream", given, *VERDICT) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and copied.state() == before


def test_a_renamed_file_is_merged_with_what_it_was(copied, capsys):
    copied.git("mv", f"{COPY}/model.py", f"{COPY}/network.py")
    copied.edit(f"{COPY}/network.py", "V30 = 30\n", "V30 = 'better'\n")
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'since'\n")
    copied.commit("one renames, both edit")
    assert copied.run("upstream", COPY, *VERDICT) == 0
    assert not (copied.root / BASE / "model.py").exists()
    text = copied.read(f"{BASE}/network.py")
    assert "V30 = 'better'\n" in text and "V10 = 'since'\n" in text
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{BASE}: 2 files changed by relu, not committed",
        "relu against base: +2 -2 lines before, +1 -1 lines after",
    ]


def test_an_edit_goes_into_the_file_that_the_origin_renamed(copied):
    copied.git("mv", f"{BASE}/model.py", f"{BASE}/network.py")
    copied.edit(f"{BASE}/network.py", "V10 = 10\n", "V10 = 'since'\n")
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'better'\n")
    copied.commit("one renames, both edit")
    assert copied.run("upstream", COPY, *VERDICT) == 0
    assert not (copied.root / BASE / "model.py").exists()
    text = copied.read(f"{BASE}/network.py")
    assert "V30 = 'better'\n" in text and "V10 = 'since'\n" in text


def test_a_file_that_both_renamed_differently_is_a_conflict(copied, capsys):
    copied.git("mv", f"{BASE}/model.py", f"{BASE}/network.py")
    copied.git("mv", f"{COPY}/model.py", f"{COPY}/net.py")
    copied.commit("both rename")
    assert copied.run("upstream", COPY, *VERDICT) == 1
    out = capsys.readouterr().out
    assert f"{BASE}/network.py: was model.py, and is net.py in the variant\n" in out
    assert entry(copied).status == "active"
