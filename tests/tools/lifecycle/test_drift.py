"""What a copy lacks, and porting it."""

import json

import pytest

from tests.tools.lifecycle.conftest import BASE
from tools.ledger.files import entry_file
from tools.lifecycle.merge import merge

COPY = "experiments/grug/relu"
RELU = entry_file("relu")


def lacks(workspace, capsys, *variants: str) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """(subject, state, [(path, what, state), ...]) of each commit, as JSON has them."""
    capsys.readouterr()
    assert workspace.run("drift", *variants, "--format=json") == 0
    (found,) = json.loads(capsys.readouterr().out)["variants"]
    return [
        (c["subject"], c["state"], [(p["path"], p["what"], p["state"]) for p in c["parts"]])
        for c in found["commits"]
    ]


def states(workspace, capsys) -> list[str]:
    return [state for _, state, _ in lacks(workspace, capsys)]


def test_nothing_is_lacked_at_first(copied, capsys):
    assert lacks(copied, capsys) == []
    copied.run("drift")
    assert "relu: lacks nothing of base since" in capsys.readouterr().out


def test_each_hunk_is_judged_alone(copied, capsys):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'mine'\n")
    copied.edit(f"{COPY}/model.py", "V50 = 50\n", "V50 = 'fixed'\n")
    for number in (10, 30, 50):
        copied.edit(f"{BASE}/model.py", f"V{number} = {number}\n", f"V{number} = 'fixed'\n")
    commit = copied.commit("a fix")
    copied.write("unrelated", "x")
    copied.commit("unrelated")
    ((subject, state, parts),) = lacks(copied, capsys, "relu")
    assert (subject, state) == ("a fix", "conflicts")
    assert [p[2] for p in parts] == ["applies cleanly", "conflicts", "already there"]
    copied.run("drift", COPY)
    out = capsys.readouterr().out.splitlines()
    assert out[1] == f"  {commit[:12]}  a fix"
    assert out[2:5] == [
        "    model.py:14-20  applies cleanly",
        "    model.py:34-40  conflicts",
        "    model.py:54-60  already there",
    ]
    assert out[5] == f"next: ./pants drift --drift-apply={commit[:12]} {COPY}"


def test_a_ported_commit_is_known_by_content(copied, capsys):
    copied.edit(f"{COPY}/model.py", "V5 = 5\n", "V5 = 'mine'\n")
    copied.commit()
    copied.edit(f"{BASE}/model.py", "import data\n", "import data, more\n")
    copied.edit(f"{BASE}/model.py", "V40 = 40\n", "V40 = 40\nX = 1\n")
    fix = copied.commit("a fix")
    assert states(copied, capsys) == ["applies cleanly"]
    assert copied.run("drift", "--apply", fix[:8], "relu") == 0
    out = capsys.readouterr().out
    assert f"{COPY}/model.py: {fix[:12]}: 2 applies cleanly" in out and "next: " in out
    text = copied.read(f"{COPY}/model.py")
    assert "from experiments.grug.relu import data, more\n" in text
    assert "V40 = 40\nX = 1\n" in text and "V5 = 'mine'\n" in text
    assert states(copied, capsys) == []  # it was looked at
    copied.edit(f"{COPY}/model.py", "X = 1\n", "X = 1\nY = 2\n")  # goes on from there
    copied.commit("port")
    assert states(copied, capsys) == []
    assert copied.run("drift", "--apply", fix, "relu") == 0
    assert "nothing to do" in capsys.readouterr().out and copied.git("status", "-s") == ""


def test_conflicts_leave_markers_and_exit_code_1(copied, capsys):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'mine'\n")
    copied.commit()
    for number in (10, 30):
        copied.edit(f"{BASE}/model.py", f"V{number} = {number}\n", f"V{number} = 'fixed'\n")
    fix = copied.commit("a fix")
    copied.edit(f"{BASE}/model.py", "V50 = 50\n", "V50 = 'later'\n")
    later = copied.commit("later")
    assert copied.run("drift", "--apply", fix, "--apply", later, "relu") == 1
    assert "1 applies cleanly, 1 conflicts" in capsys.readouterr().out
    text = copied.read(f"{COPY}/model.py")
    short = fix[:12]
    assert f"<<<<<<< {COPY}\nV30 = 'mine'\n||||||| {short}^\nV30 = 30\n=======\n" in text
    assert f"V30 = 'fixed'\n>>>>>>> {short}\n" in text
    assert "V10 = 'fixed'\n" in text and "V50 = 50\n" in text  # nothing is put into markers
    before = copied.state()
    assert copied.run("drift", "--apply", later, "relu") == 1
    assert f"{COPY}/model.py: not committed" in capsys.readouterr().err
    assert copied.state() == before


def test_files_added_deleted_renamed_and_made_executable(copied, capsys):
    copied.write(f"{BASE}/new.py", "from experiments.grug.base import data\n")
    copied.git("rm", "-q", f"{BASE}/run")
    copied.git("mv", f"{BASE}/model.py", f"{BASE}/net.py")
    copied.edit(f"{BASE}/net.py", "V10 = 10\n", "V10 = 0\n")
    (copied.root / BASE / "data.py").chmod(0o755)
    copied.write(f"{BASE}/sub/words.txt", b"\0\xff")
    fix = copied.commit("files")
    copied.edit(f"{COPY}/model.py", "V50 = 50\n", "V50 = 'mine'\n")
    copied.commit()
    ((_, state, parts),) = lacks(copied, capsys)
    assert state == "applies cleanly"
    assert {(path, what) for path, what, _ in parts} == {
        ("new.py", "new file"),
        ("run", "deleted file"),
        ("net.py", "renamed from model.py"),
        ("net.py", ""),
        ("data.py", "mode executable"),
        ("sub/words.txt", "binary file"),
    }
    assert copied.run("drift", "--apply", fix) == 0
    here = copied.root / COPY
    assert (here / "new.py").read_text() == "from experiments.grug.relu import data\n"
    assert not (here / "run").exists() and not (here / "model.py").exists()
    text = (here / "net.py").read_text()
    assert "V10 = 0\n" in text and "V50 = 'mine'\n" in text and "grug.relu import" in text
    assert (here / "data.py").stat().st_mode & 0o100
    assert (here / "sub/words.txt").read_bytes() == b"\0\xff"
    assert states(copied, capsys) == []


def test_files_that_the_copy_has_changed_conflict(copied, capsys):
    copied.write(f"{COPY}/run", "mine")
    copied.write(f"{COPY}/new.py", "mine\n")
    copied.git("rm", "-q", f"{COPY}/data.py")
    copied.commit()
    copied.git("rm", "-q", f"{BASE}/run")
    copied.write(f"{BASE}/new.py", "theirs\n")
    copied.write(f"{BASE}/data.py", "WIDTH = 2\n")
    fix = copied.commit("files")
    ((_, state, parts),) = lacks(copied, capsys)
    assert {part[2] for part in parts} == {"conflicts"} == {state}
    assert copied.run("drift", "--apply", fix) == 1
    out = capsys.readouterr().out
    assert "run: " in out and "(deleted file)" in out and "(file not in the copy)" in out
    assert copied.read(f"{COPY}/run") == "mine"
    assert copied.read(f"{COPY}/new.py").startswith(f"<<<<<<< {COPY}\nmine\n")
    assert not (copied.root / COPY / "data.py").exists()


def test_a_merge_is_one_change_against_its_first_parent(copied, capsys):
    copied.git("checkout", "-q", "-b", "side")
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'side'\n")
    side = copied.commit("on the side")
    copied.git("checkout", "-q", "main")
    copied.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'main'\n")
    copied.commit("on main")
    copied.git("merge", "-q", "--no-ff", "-m", "merge side", "side")
    found = lacks(copied, capsys)
    assert [(subject, len(parts)) for subject, _, parts in found] == [
        ("on main", 1),
        ("merge side", 1),
    ]
    assert copied.run("drift", "--apply", side) == 0  # also one that only a merge brought
    assert states(copied, capsys) == ["applies cleanly", "already there"]


def test_a_users_configuration_changes_nothing(copied, capsys, monkeypatch, tmp_path_factory):
    copied.edit(f"{COPY}/model.py", "V40 = 40\n", "V40 = 40\nX = 1\nY = 2\n")
    copied.edit(f"{BASE}/model.py", "V40 = 40\n", "V40 = 40\nX = 1\n")
    copied.commit("ported, with more")
    config = tmp_path_factory.mktemp("home") / "config"
    config.write_text("[merge]\nconflictStyle = diff3\n[diff]\nnoprefix = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    merge.cache_clear()
    assert states(copied, capsys) == ["already there"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["gone"], "gone: is not in the ledger"),
        (["base"], "base: was copied from nothing"),
        (["--apply", "0123456"], "git knows no such commit"),
        (["--apply", "--all"], "git knows no such commit"),
        (["--apply", "HEAD", "relu"], "does not touch experiments/grug/base"),
        (["--apply", "HEAD"], "touches no living copy's origin"),
    ],
)
def test_refusals(copied, capsys, words, message):
    before = copied.state()
    words = [f"--apply={words[1]}", *words[2:]] if words[0] == "--apply" else words
    assert copied.run("drift", *words) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and copied.state() == before


def test_a_fork_point_that_is_not_known(copied, capsys):
    text = copied.read(RELU)
    (line,) = [line for line in text.splitlines(keepends=True) if "forked at" in line]
    for instead, message in (
        ("- forked at: 0123456789ab\n", "git knows no commit 0123456789ab: correct it"),
        ("", "its fork point is not known: add '- forked at: COMMIT'"),
    ):
        copied.write(RELU, text.replace(line, instead))
        assert copied.run("drift") == 1
        assert message in capsys.readouterr().err


def test_a_file_that_the_copy_renamed_is_judged_and_ported_to_under_its_new_name(copied, capsys):
    copied.git("mv", f"{COPY}/model.py", f"{COPY}/network.py")
    copied.edit(f"{COPY}/network.py", "V30 = 30\n", "V30 = 'mine'\n")
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'fixed'\n")
    fix = copied.commit("a rename here, a fix there")
    assert states(copied, capsys) == ["applies cleanly"]
    assert copied.run("drift", "--apply", fix) == 0
    text = copied.read(f"{COPY}/network.py")
    assert "V10 = 'fixed'\n" in text and "V30 = 'mine'\n" in text
    assert not (copied.root / COPY / "model.py").exists()
    copied.commit("ported")
    assert states(copied, capsys) == []


# -- what was looked at --------------------------------------------------------------------------


def test_a_commit_that_a_later_one_changed_again_is_no_conflict(copied, capsys):
    """Both were ported by hand, so that the ledger does not know of it."""
    copied.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'a'\n")
    copied.commit("a")
    copied.edit(f"{BASE}/model.py", "V30 = 'a'\n", "V30 = 'b'\n")
    copied.commit("b")
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'b'\n")
    copied.edit(f"{COPY}/model.py", "V50 = 50\n", "V50 = 'mine'\n")
    copied.commit("ported by hand")
    assert states(copied, capsys) == ["already there"] * 2
    # Where the same file lacks something else, too.
    copied.edit(f"{BASE}/model.py", "V10 = 10\n", "V10 = 'c'\n")
    copied.commit("c")
    assert states(copied, capsys) == ["already there"] * 2 + ["applies cleanly"]


def test_what_was_taken_back_is_not_lacked(copied, capsys):
    copied.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 30\nX = 1\n")
    copied.commit("x")
    copied.edit(f"{BASE}/model.py", "V30 = 30\nX = 1\n", "V30 = 30\n")
    copied.commit("no x")
    assert states(copied, capsys) == ["already there"] * 2


def test_declined_commits_stay_with_their_reasons(copied, capsys):
    digests = []
    for number in (10, 30, 50):
        copied.edit(f"{BASE}/model.py", f"V{number} = {number}\n", f"V{number} = 'new'\n")
        digests.append(copied.commit(f"change {number}"))
    first, second, third = digests
    assert copied.run("drift", "--decline", second, "--reason=it has no such layer", "relu") == 0
    assert f"{second[:12]} declined: it has no such layer" in copied.entry().synced
    assert states(copied, capsys) == ["applies cleanly", "already there", "applies cleanly"]
    assert copied.run("drift", "relu") == 0
    assert "change 30  (declined: it has no such layer)" in capsys.readouterr().out
    assert copied.run("drift", "--apply", third, "relu") == 0
    assert copied.entry().synced.endswith(
        f"{second[:12]} declined: it has no such layer; {third[:12]} applied"
    )
    copied.commit("third")
    assert copied.run("drift", "--apply", first, "relu") == 0
    copied.commit("first")
    tree = copied.git("rev-parse", f"{third}:{BASE}")[:12]
    assert copied.entry().synced == (
        f"{third[:12]} tree {tree}; {second[:12]} declined: it has no such layer"
    )
    assert lacks(copied, capsys) == [] and copied.faults() == []
    # Another mind about it is no contradiction.
    assert copied.run("drift", "--apply", second, "relu") == 0
    assert "V30 = 'new'" in copied.read(f"{COPY}/model.py")
    assert "declined" not in copied.entry().synced


@pytest.mark.parametrize(
    "words, message",
    [
        (["--decline", "HEAD"], "name the copies"),
        (["--decline", "HEAD", "relu"], "does not touch experiments/grug/base"),
        (["--synced", "HEAD"], "name the copies"),
        (["--synced", "gone", "relu"], "git knows no such commit"),
    ],
)
def test_notes_that_cannot_be_written(copied, capsys, words, message):
    before = copied.state()
    assert copied.run("drift", *words, "--reason=r") == 1
    assert message in capsys.readouterr().err and copied.state() == before
    assert copied.run("drift", "--decline=HEAD", "--reason=a; b", "relu") == 1
    assert "the reason holds ';'" in capsys.readouterr().err
    assert copied.run("drift", "--decline=HEAD", "relu") == 1
    assert "declined for a reason" in capsys.readouterr().err


def test_a_conflict_that_was_resolved_by_hand_is_said(copied, capsys):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 'mine'\n")
    copied.commit()
    copied.edit(f"{BASE}/model.py", "V30 = 30\n", "V30 = 'fixed'\n")
    fix = copied.commit("a fix")
    assert copied.run("drift", "--apply", fix, "relu") == 1
    assert "./pants drift --drift-synced=COMMIT" in capsys.readouterr().out
    text = copied.read(f"{COPY}/model.py")
    start, end = text.index("<<<<<<<"), text.index(">>>>>>>")
    end = text.index("\n", end) + 1
    copied.write(f"{COPY}/model.py", f"{text[:start]}V30 = 'mine and fixed'\n{text[end:]}")
    copied.commit("resolved")
    assert states(copied, capsys) == ["conflicts"]
    assert copied.run("drift", "--synced", fix, "relu") == 0
    assert lacks(copied, capsys) == [] and copied.faults() == []
