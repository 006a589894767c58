"""The end of a variant, and what stands against it."""

import subprocess

import pytest

from tests.tools.lifecycle.conftest import BASE
from tools.ledger.files import entry_file

COPY = "experiments/grug/relu"
RELU = entry_file("relu")


def retire(workspace, *words: str, verdict: str = "it does not pay") -> int:
    return workspace.run("retire", COPY, "--verdict", verdict, *words)


def test_all_of_it_goes_and_git_revert_brings_it_back(copied, capsys):
    copied.write("tools/locks/relu.lock", "lock")
    copied.write("tools/locks/relu.in", "jax")
    head = copied.commit()
    for path in (f"{COPY}/__pycache__/x.pyc", f"{COPY}/sub/__pycache__/y.pyc", "dist/diff/relu/x",
                 "dist/diff/relu_2/x", "dist/bundles/relu-cpu/x", "dist/bundles/relu-gpu.zip",
                 "dist/bundles/relu_2-cpu/x"):  # fmt: skip
        copied.write(path, "built")
    files, ledger = copied.git("ls-files", "-s"), copied.ledger()
    assert retire(copied) == 0
    out = capsys.readouterr().out
    assert f"{COPY}: 5 files removed\n" in out and "tools/locks/relu.in: removed\n" in out
    assert not (copied.root / COPY).exists() and not list(copied.root.glob("tools/locks/*"))
    left = {p.relative_to(copied.root / "dist").as_posix() for p in copied.root.glob("dist/*/*")}
    assert left == {"diff/relu_2", "bundles/relu_2-cpu"}
    entry = copied.entry()
    assert (entry.status, entry.verdict) == ("deleted", "it does not pay")
    assert entry.last_known_good.startswith(f"{head[:12]} tree ") and entry.introduced != "pending"
    assert copied.faults() == []
    (command,) = [line for line in out.splitlines() if line.startswith("next: ")]
    copied.git(*command.split(" && ")[0].removeprefix("next: git ").split())
    copied.git("commit", "-q", "-m", "retire relu")
    assert copied.faults() == [] and copied.git("status", "-s") == ""
    copied.git("revert", "--no-edit", "HEAD")
    assert copied.git("ls-files", "-s") == files and copied.ledger() == ledger
    assert copied.faults() == []


def test_one_whose_name_begins_another(copied):
    text = copied.read(RELU).replace("# relu", "# relu-x").replace("grug/relu", "grug/relu-x")
    copied.write(entry_file("relu-x"), text)
    copied.write("experiments/grug/relu-x/BUILD", "grug_variant()\n")
    copied.commit()
    for name in ("relu-x-cpu", "relu-x", "relu-cpu"):
        copied.write(f"dist/bundles/{name}/x", "built")
    assert retire(copied, "--keep-mentions") == 0
    assert sorted(p.name for p in copied.root.glob("dist/bundles/*")) == ["relu-x", "relu-x-cpu"]


def test_a_superseded_one_keeps_its_verdict_and_its_successor(copied):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 0\n")
    copied.commit()
    assert copied.run("upstream", "relu", "--verdict", "it won") == 0
    copied.commit()
    assert retire(copied, verdict="") == 0
    entry = copied.entry()
    assert (entry.status, entry.verdict, entry.superseded_by) == ("deleted", "it won", "base")
    assert copied.faults() == []


def test_history_is_no_dependence(copied):
    assert copied.fork("gelu", COPY) == 0
    copied.write("docs/reports/runs/relu/x.json", f'"{COPY}"')
    copied.write("tools/notes.py", f"# {COPY}\nx = '{COPY}2', 'x.experiments.grug.relu'\n")
    copied.commit()
    copied.run("drift", "gelu")
    (copied.root / "docs/reports/runs/relu/x.json").unlink()
    assert retire(copied) == 0


@pytest.mark.parametrize(
    "path, text, line, needs",
    [
        ("experiments/grug/gelu/x.py", "\nfrom experiments.grug.relu import data\n", 2, True),
        ("tests/test_x.py", "import experiments.grug.relu.model as m\n", 1, True),
        ("tests/test_x.py", f"\n\nx = open('{COPY}/model.py')\n", 3, False),
        ("tests/test_x.py", f"x = '''\n\n{COPY}\n'''\n", 3, False),
        ("tests/broken.py", f"x = ({COPY}\n", 1, False),
        ("tools/BUILD", f"x(dependencies=['{COPY}:lib'])\n", 1, True),
        ("pants.toml", "[python.resolves]\nrelu = 'tools/locks/relu.lock'\n", 2, True),
        ("tools/locks/BUILD", "x(source='relu.lock')\n", 1, True),
        ("docs/page.md", f"\nsee `{COPY}/`\n", 2, False),
        ("README.md", "    ./pants run launch -- relu --seed 0\n", 1, False),
        ("README.md", "`./pants run tools/runs:claim -- base --against relu`\n", 1, False),
    ],
)
def test_what_names_it_stands_against_it(copied, capsys, path, text, line, needs):
    copied.write("tools/locks/relu.lock", "lock")
    copied.commit()
    copied.write(path, text)
    before = copied.state()
    assert retire(copied) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[0] == f"{path}:{line}: names relu" and len(error) == 2
    assert ("--retire-keep-mentions" in error[1]) is not needs
    assert copied.state() == before
    assert retire(copied, "--keep-mentions") == needs
    assert (copied.state() == before) is needs


@pytest.mark.parametrize(
    "dirty, verdict, message",
    [
        (f"{COPY}/model.py", "v", f"{COPY}/model.py: git does not have it"),
        (f"{COPY}/new.py", "v", f"{COPY}/new.py: git does not have it"),
        ("tools/locks/relu.lock", "v", "tools/locks/relu.lock: git does not have it"),
        ("", "", "the verdict is empty"),
        ("", "a\nb", "the verdict holds a line break"),
    ],
)
def test_refusals(copied, capsys, dirty, verdict, message):
    if dirty:
        copied.write(dirty, "X = 1\n")
    before = copied.state()
    assert retire(copied, verdict=verdict) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and copied.state() == before


def test_one_that_lost_a_file(copied, capsys):
    (copied.root / COPY / "model.py").unlink()
    assert retire(copied) == 1
    assert f"{COPY}/model.py: git does not have it: commit it" in capsys.readouterr().err


def test_one_that_is_not_there(copied, capsys):
    assert copied.run("retire", "gone", "--verdict=v") == 1
    assert "gone: is not in the ledger" in capsys.readouterr().err
    assert retire(copied) == 0
    assert retire(copied) == 1
    assert "relu: is deleted" in capsys.readouterr().err
    assert BASE in copied.ledger()


def test_one_that_was_never_committed_is_given_up(workspace, capsys):
    """The command of the message, and the workspace is as it was."""
    before = workspace.state()
    assert workspace.fork() == 0
    capsys.readouterr()
    assert retire(workspace) == 1
    error = capsys.readouterr().err
    command = error.partition("give it up: ")[2].split()
    assert command[:2] == ["rm", "-r"] and error.count("\n") == 1
    subprocess.run(command, cwd=workspace.root, check=True)
    assert [p for p in workspace.state() if p not in before] == ["docs/reports/variants"]
