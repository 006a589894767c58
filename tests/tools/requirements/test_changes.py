"""What changed between two locks, and how it reads."""

import pytest

from tests.tools.requirements.conftest import ANY, Lab, entry, lock_text, make_lock
from tools.bundle.lock import Lock
from tools.requirements import render
from tools.requirements.changes import Moved, compare

LINUX = "cp312-cp312-manylinux_2_28_x86_64"


def text(old: Lock | None, new: Lock | None) -> str:
    return render.differences([compare("cpu.lock", old, new)])


def test_versions_that_moved():
    old = make_lock(*(entry(n, "1.9") for n in "abcd"), asked=["a", "b==1.9", "d"])
    new = make_lock(
        entry("a", "1.10"), entry("b", "1.2"), entry("c", "1.9"), entry("e", "3"),
        asked=["a", "b==1.2", "e"],
    )  # fmt: skip
    result = compare("cpu.lock", old, new)
    assert [(m.kind, m.name) for m in result.moved] == [
        ("updated", "a"),
        ("downgraded", "b"),
        ("removed", "d"),
        ("added", "e"),
    ]
    assert result.asked == (("b==1.9", "b==1.2"), ("d", None), (None, "e"))
    assert text(old, new) == (
        "cpu.lock: 1 updated, 1 downgraded, 1 removed, 1 added; 4 packages\n"
        "  asked for   b==1.9 -> b==1.2\n"
        "  asked for   - d\n"
        "  asked for   + e\n"
        "  updated     a 1.9 -> 1.10\n"
        "  downgraded  b 1.9 -> 1.2\n"
        "  removed     d 1.9\n"
        "  added       e 3\n"
    )
    assert Moved("a", "weekly", "daily").kind == "updated"


def test_a_file_with_another_digest_is_a_warning_and_a_further_file_none():
    old = make_lock(entry("a", "1"), entry("b", "1"))
    more = make_lock(entry("a", "1", tags=[ANY, LINUX]), entry("b", "1"))
    assert text(old, more) == (
        "cpu.lock: no version changed; 2 packages\n  other files at the same version: a\n"
    )
    other = make_lock(entry("a", "1", content="swapped"), entry("b", "1"))
    assert f"! a 1: a-1-{ANY}.whl has another sha256 than before" in text(old, other)
    assert "other files" not in text(old, other)
    # At another version other digests are what is to be expected.
    assert "!" not in text(old, make_lock(entry("a", "2", content="new"), entry("b", "1")))


def test_other_interpreters_and_other_hosts():
    old = make_lock(entry("a", "1"))
    new = Lock.parse(
        lock_text([], [entry("a", "1")], "CPython<3.15,>=3.12").replace(
            "example.org", "mirror.net"
        ),
        "cpu.lock",
    )
    assert "  Python      CPython<3.14,>=3.12 -> CPython<3.15,>=3.12\n" in text(old, new)
    assert "! files come from elsewhere: files.example.org -> files.mirror.net\n" in text(old, new)


def test_a_lock_that_comes_goes_or_stays():
    lock = make_lock(entry("a", "1"))
    assert text(None, lock).startswith("cpu.lock: 1 added; 1 packages\n")
    assert text(lock, None).startswith("cpu.lock: 1 removed; 0 packages\n")
    assert text(lock, lock) == "cpu.lock: nothing changed\n"


def test_nothing_in_a_lock_controls_the_terminal():
    lock = make_lock(entry("a", "1\x1b[2J"), entry("b\r", "1"))
    assert "1?[2J" in text(None, lock) and "\r" not in text(None, lock)


def test_two_files(lab: Lab, tmp_path, capsys):
    new = tmp_path / "new.lock"
    new.write_text(lab.index.lock("jax\nmiddle\n"))
    assert lab.run("diff", str(lab.root / "tools/locks/docs.lock"), str(new)) == 0
    assert "added       jax 1.0\n" in capsys.readouterr().out
    assert lab.run("diff", str(new), str(tmp_path / "none.lock")) == 1
    assert "none.lock: cannot be read" in capsys.readouterr().err


def test_against_a_commit(lab: Lab, capsys):
    assert lab.run("diff") == 0 and capsys.readouterr().out == "no lock differs\n"
    lab.index.put("middle", "2.0")
    lab.write("tools/locks/gpu.lock", lab.index.lock(lab.listing("gpu")))
    assert lab.run("diff") == 0
    message = "tools/locks/gpu.lock: 1 updated; 3 packages\n  updated     middle 1.0 -> 2.0\n"
    assert capsys.readouterr().out == message
    assert lab.run("diff", "cpu") == 0 and capsys.readouterr().out == "no lock differs\n"
    lab.commit()
    assert lab.run("diff", "gpu", "tpu", "--against", "HEAD~") == 0
    assert capsys.readouterr().out == message
    (lab.root / "tools/locks/docs.lock").unlink()
    assert lab.run("diff", "docs") == 0 and "removed     mkdocs 1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("diff", "gpx"), "has no 'gpx'; did you mean 'gpu'?"),
        (("diff", "--against", "nowhere"), "git knows no commit 'nowhere'"),
        (("update", "whatever"), "has no 'whatever'; it has cpu, docs, gpu, tpu"),
    ],
)
def test_what_is_not_there_is_named(lab: Lab, capsys, words, message):
    assert lab.run(*words) == 1
    assert message in capsys.readouterr().err


def test_a_lock_in_conflict_is_named(lab: Lab, capsys):
    lab.write("tools/locks/cpu.lock", "<<<<<<< HEAD\n{}\n")
    assert lab.run("diff") == 1
    message = capsys.readouterr().err
    assert (
        message.startswith("locks: tools/locks/cpu.lock is no Pex lock")
        and message.count("\n") == 1
    )
