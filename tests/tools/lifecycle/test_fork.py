"""A copy is its origin under another name, and whole or not there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.lifecycle.conftest import BASE, FILES, HEAD, LEDGER, Workspace
from tools.isolation.scan import scan
from tools.ledger.files import entry_file
from tools.lifecycle.__main__ import main

COPY = "experiments/grug/relu"
WIDTH = 100  # of a line, as in tools/ruff.toml
ROOT = Path(__file__).parents[3]
RUFF = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))


def test_a_copy(workspace, capsys):
    commit = workspace.git("rev-parse", "HEAD")
    tree = workspace.git("rev-parse", f"HEAD:{BASE}")
    workspace.write("other", "moves HEAD")
    workspace.commit()
    assert workspace.fork() == 0
    model = FILES["model.py"].replace(b"grug/base/", b"grug/relu/")
    expected = FILES | {
        "model.py": model.replace(b"from experiments.grug.base", b"from experiments.grug.relu"),
        "data.py": FILES["data.py"].replace(b"'experiments/grug/base'", b"'experiments/grug/relu'"),
    }
    copy = {p: (workspace.root / COPY / p).read_bytes() for p in FILES}
    assert copy == expected and b"# a comment on experiments.grug.base" in copy["model.py"]
    assert (workspace.root / COPY / "run").stat().st_mode & 0o111 == 0o111
    assert not (workspace.root / COPY / "data.py").stat().st_mode & 0o111
    assert workspace.read(LEDGER) == HEAD
    assert workspace.entry().fields == {
        "path": COPY,
        "origin": "base",
        "forked at": f"{commit[:12]} tree {tree[:12]}",
        "introduced": "pending",
        "status": "active",
        "bucket": "MLP/activation",
        "purpose": "whether relu pays",
        "verdict": "pending",
    }
    step = capsys.readouterr().out.splitlines()[-1]
    command, then, _ = step.removeprefix("next: git ").partition(" && git commit; then edit it")
    assert then, step
    workspace.git(*command.split())
    staged = workspace.git("diff", "--cached", "--name-only").splitlines()
    assert staged == workspace.git("status", "-s", "-uall", "--no-renames").split()[1::2]
    assert workspace.faults() == []
    workspace.commit()
    assert workspace.faults() == []
    assert (
        not list((workspace.root / ".git/grug").glob("j*")) and workspace.git("status", "-s") == ""
    )


def test_a_copy_of_a_copy(copied):
    assert copied.fork("gelu", COPY) == 0
    assert "from experiments.grug.gelu import data" in copied.read("experiments/grug/gelu/model.py")
    assert copied.entry("gelu").origin == "relu"


def test_the_ledgers_line_ends_and_a_long_purpose(workspace):
    workspace.write(LEDGER, HEAD.replace("\n", "\r\n").rstrip())
    purpose = "whether " + "words " * 40 + "- path: x"
    assert workspace.fork(purpose=purpose) == 0
    head = HEAD.replace("\n", "\r\n").rstrip().encode()
    assert (workspace.root / LEDGER).read_bytes() == head
    data = (workspace.root / entry_file("relu")).read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n")
    assert max(len(line) for line in data.splitlines()) <= WIDTH
    assert workspace.entry().purpose == purpose


@pytest.mark.parametrize(
    "name, message",
    [
        ("Relu", "cannot name a variant"),
        ("re-lu", "cannot name a variant"),
        ("re lu", "cannot name a variant"),
        ("../relu", "cannot name a variant"),
        ("_relu", "cannot name a variant"),
        ("1relu", "cannot name a variant"),
        ("relu\n", "cannot name a variant"),
        ("rélu", "cannot name a variant"),
        ("", "cannot name a variant"),
        ("class", "cannot name a variant"),
        ("none", "cannot name a variant"),
        ("l" * 61, "is too long: 60 characters at most"),
        ("base", f"base: is taken by {LEDGER}:5 (active)"),
        ("gone", "gone: is taken by docs/reports/grug-archive.md:19 (deleted)"),
        ("noted", "noted: is taken by docs/reports/variants/noted.md"),
        ("there", "there: is taken by experiments/grug/there"),
        ("cpu", "cpu: is taken by tools/locks/cpu.lock"),
    ],
)
def test_names_that_are_refused(workspace, capsys, name, message):
    commit = workspace.git("rev-parse", "HEAD")
    gone = HEAD.partition("## base")[2].replace("grug/base", "grug/gone").replace(
        "status: active", f"status: deleted\n- last known-good: {commit}"
    )  # fmt: skip
    workspace.write(LEDGER, HEAD + "\n## gone" + gone)
    workspace.write("tools/locks/cpu.lock", "")
    workspace.write(entry_file("noted"), "# noted\n\n" + gone.replace("grug/gone", "grug/x"))
    workspace.write("experiments/grug/there/x", "")
    refused(workspace, capsys, message, name=name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bucket": "MLP"}, "unknown bucket 'MLP'; known: attention/masking, block wiring/norm"),
        ({"bucket": "template"}, "unknown bucket 'template'"),
        ({"purpose": " "}, "the purpose is empty"),
        ({"purpose": "a\nb"}, "the purpose holds a line break"),
        ({"purpose": "a\u2028b"}, "the purpose holds a line break"),
        ({"origin": "experiments/grug/bas"}, "is not in the ledger; did you mean experiments/gr"),
        ({"origin": "/"}, "is not in the ledger"),
    ],
)
def test_options_that_are_refused(workspace, capsys, options, message):
    refused(workspace, capsys, message, **options)


def refused(workspace, capsys, message: str, **options: str) -> None:
    """One line, exit code 1, and nothing written."""
    before = workspace.state()
    assert workspace.fork(**options) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1, captured.err
    assert captured.out == "" and workspace.state() == before
    assert {p.name for p in (workspace.root / ".git/grug").iterdir()} == {"lock"}


def test_a_dirty_origin_is_refused(workspace, capsys):
    workspace.write(f"{BASE}/new.py", "")
    refused(workspace, capsys, f"{BASE}/new.py: not committed")
    (workspace.root / BASE / "new.py").unlink()
    workspace.write(f"{BASE}/__pycache__/x.pyc", "")
    workspace.write(f"{BASE}/model.py", "x = 1\n")
    refused(workspace, capsys, f"{BASE}/model.py: not committed")
    workspace.git("add", ".")
    refused(workspace, capsys, f"{BASE}/model.py: not committed")
    workspace.commit()
    assert workspace.fork() == 0
    assert not (workspace.root / COPY / "__pycache__").exists()


@pytest.mark.parametrize(
    "path, content, message",
    [
        ("link.py", None, "link.py: is a symbolic link"),
        ("bad.py", "'experiments.grug.base'(\n", "bad.py: cannot be read as Python"),
        ("odd.py", "x = 'experiments.grug.' + 'base'\n", "base/odd.py:1: in a copy this names the"),
        ("odd.py", "from experiments.grug import moe\n", "base/odd.py:1: in a copy this imports"),
    ],
)
def test_an_origin_that_cannot_be_copied(workspace, capsys, path, content, message):
    if content is None:
        (workspace.root / BASE / path).symlink_to("model.py")
    else:
        workspace.write(f"{BASE}/{path}", content)
    workspace.commit()
    refused(workspace, capsys, message, name="relu")


def test_outside_a_repository_or_before_a_commit(workspace, capsys):
    shutil.rmtree(workspace.root / ".git")
    assert workspace.fork() == 1
    assert "is in no git repository" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q"], cwd=workspace.root, check=True)
    assert workspace.fork() == 1
    assert "has no commit yet" in capsys.readouterr().err


def test_in_a_linked_worktree_and_below_a_repository(workspace, tmp_path_factory):
    linked = tmp_path_factory.mktemp("linked") / "tree"
    workspace.git("worktree", "add", "-q", str(linked))
    words = ["--bucket", "loss kernel", "--purpose", "p", "--root"]
    assert main(["fork", BASE, "--name", "relu", *words, str(linked)]) == 0
    assert (linked / COPY / "model.py").exists() and not (workspace.root / COPY).exists()
    inner = workspace.root / "inner"
    shutil.copytree(linked, inner, ignore=shutil.ignore_patterns(".git", "relu*"))
    shutil.copy(workspace.root / LEDGER, inner / LEDGER)
    workspace.commit()
    assert main(["fork", BASE, "--name", "relu", *words, str(inner)]) == 0
    assert (inner / COPY / "model.py").exists() and not (workspace.root / COPY).exists()


@pytest.mark.parametrize("origin", ["base", "moe"])
def test_the_real_variants(tmp_path, capsys, origin):
    workspace = Workspace(tmp_path)
    source, path = ROOT / f"experiments/grug/{origin}", f"experiments/grug/{origin}"
    for file in source.rglob("*.py"):
        workspace.write(f"{path}/{file.relative_to(source).as_posix()}", file.read_bytes())
    workspace.write(f"{path}/BUILD", "grug_variant()\n")
    workspace.write(LEDGER, HEAD.replace("base", origin))
    workspace.commit()
    for name in ("relu", "a", "z" * 60):
        assert workspace.fork(name, path) == 0
        copy = tmp_path / f"experiments/grug/{name}"
        for part in ("plumbing", "planning"):
            for file in (source / part).glob("*.py"):
                assert (copy / part / file.name).read_bytes() == file.read_bytes()
        for file in copy.rglob("*.py"):
            text = file.read_text()
            where = file.relative_to(tmp_path).as_posix()
            assert scan(where, text, f"experiments/grug/{name}") == []
            assert max(len(line) for line in text.splitlines()) <= WIDTH
        if RUFF:
            for words in (["check", "-q"], ["format", "--check", "-q"]):
                config = ["--no-cache", "--config", str(ROOT / "tools/ruff.toml")]
                # Where it stands, patterns of files in the config begin.
                subprocess.run([RUFF, *words, *config, str(copy)], check=True, cwd=tmp_path)
    workspace.commit()
    assert workspace.faults() == []


def test_what_python_leaves_behind_is_no_variant(copied):
    """A directory that holds only __pycache__, after another branch was checked out, say."""
    copied.git("rm", "-rqf", COPY)
    copied.git("rm", "-qf", entry_file("relu"))
    copied.commit("relu is no more")
    copied.write(f"{COPY}/__pycache__/model.pyc", "left")
    copied.write(f"{COPY}/sub/__pycache__/x.pyc", "left")
    assert copied.faults() == []
    assert copied.fork() == 0
    assert copied.faults() == []


def test_a_deleted_variant_of_which_only_caches_are_left_is_not_there(copied, capsys):
    assert copied.run("retire", "relu", "--verdict=v", "--keep-mentions") == 0
    copied.commit("retire relu")
    copied.write(f"{COPY}/__pycache__/model.pyc", "left")
    assert copied.faults() == []
    assert copied.fork("gelu", COPY) == 1
    assert "experiments/grug/relu: is not there (relu is deleted)" in capsys.readouterr().err
    copied.write(f"{COPY}/model.py", "")
    (fault,) = copied.faults()
    assert "relu is deleted, but experiments/grug/relu is there" in fault


def test_an_empty_sentence_is_asked_for_once(workspace, capsys):
    refused(workspace, capsys, "empty: say in one sentence the question it answers", purpose=" ")
    assert workspace.run("retire", "base") == 1
    assert "the verdict is empty: say in one sentence what was learned" in capsys.readouterr().err


def test_a_sentence_may_begin_with_an_at_sign(workspace):
    assert workspace.fork(purpose="@alice asks") == 0
    assert workspace.entry().purpose == "@alice asks"
