"""All or nothing: a command killed anywhere, and files edited in between."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.lifecycle.conftest import BASE, LEDGER
from tools.common import transaction
from tools.common.errors import ToolError
from tools.common.files import File
from tools.common.transaction import Change, carry_out, locked, recover

ROOT = Path(__file__).parents[3]
COPY = "experiments/grug/relu"
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree")


def killed_at(step: int, work) -> bool:
    """Runs `work` in a child that dies at its `step`-th change of files; whether it died.

    A step is a call that changes files, before it happens, or half of what is written.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event, arguments):
            if event in EVENTS and (event != "open" or _writes(arguments)):
                left[0] -= 1
                if not left[0]:
                    os._exit(9)

        write = os.write

        def halved(handle, data):
            left[0] -= 1
            if not left[0]:
                write(handle, data[: len(data) // 2])
                os._exit(9)
            return write(handle, data)

        os.write = halved  # ty: ignore[invalid-assignment]
        sys.addaudithook(count)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _writes(arguments) -> bool:
    """Whether files below a state or working directory are opened to be written."""
    path, _, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and "/dev/" not in str(path)


def no_debris(workspace) -> None:
    assert {p.name for p in (workspace.root / ".git/grug").iterdir()} == {"lock"}


def each_step(workspace, work, restore) -> set[str]:
    """Kills `work` at each of its steps; what the recovered tree was, of old and new."""
    old = workspace.state()
    work()
    new = workspace.state()
    assert new != old
    restore()
    observed = set()
    for step in range(1, 1000):
        assert workspace.state() == old
        died = killed_at(step, work)
        assert workspace.run("recover") == 0
        now = workspace.state()
        assert now in (old, new), f"step {step} left something in between"
        observed.add("old" if now == old else "new")
        no_debris(workspace)
        restore()
        if not died:
            return observed
    raise AssertionError("it does not end")


def restorer(workspace):
    def restore() -> None:
        workspace.git("reset", "-q", "--hard")
        workspace.git("clean", "-q", "-d", "-f")

    return restore


def test_a_fork_killed_at_each_step(workspace):
    fork = workspace.fork
    assert each_step(workspace, fork, restorer(workspace)) == {"old", "new"}


def test_an_upstream_and_a_retirement_killed_at_each_step(copied):
    copied.edit(f"{COPY}/model.py", "V30 = 30\n", "V30 = 0\n")
    copied.write(f"{COPY}/more.py", "X = 1\n")
    copied.git("rm", "-q", f"{COPY}/run")
    copied.commit()
    restore = restorer(copied)
    assert each_step(copied, lambda: copied.run("upstream", "relu", "--verdict=v"), restore) == {
        "old",
        "new",
    }
    ignored = copied.root / COPY / "sub/__pycache__/x.pyc"

    def with_leftovers() -> None:
        restore()
        copied.write(ignored.relative_to(copied.root).as_posix(), b"x")

    with_leftovers()
    retire = ("retire", "relu", "--verdict", "no")
    assert each_step(copied, lambda: copied.run(*retire), with_leftovers) == {"old", "new"}


def test_processes_killed_at_random(workspace):
    """From outside, by SIGKILL, at moments that do not know the code."""
    command = [sys.executable, "-m", "tools.lifecycle", "fork", BASE, "--name=relu"]
    command += ["--bucket=loss kernel", "--purpose=p", "--root", str(workspace.root)]
    places = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=places, cwd=ROOT, stdout=-3, stderr=-3)

    old, restore = workspace.state(), restorer(workspace)
    for number in range(40):  # many small files: most of the time is spent writing
        workspace.write(f"{BASE}/many/f{number}", str(number))
    workspace.commit()
    old = workspace.state()
    began = time.monotonic()
    assert start().wait() == 0
    took = time.monotonic() - began
    new = workspace.state()
    restore()
    moments = random.Random(0)
    killed = 0
    for _ in range(100):
        began, process = time.monotonic(), start()
        try:
            process.wait(moments.uniform(0.3, 0.9) * took)
            took = time.monotonic() - began  # the machine has less to do than it had
        except subprocess.TimeoutExpired:
            process.kill()
        killed += process.wait() == -9
        assert workspace.run("recover") == 0
        assert workspace.state() in (old, new)
        no_debris(workspace)
        restore()
        if killed == 25:
            return
    raise AssertionError(f"only {killed} were killed in time")


def killed_with_a_journal(workspace) -> None:
    """Leaves a fork that was killed after it began to hold."""
    for step in range(1, 1000):
        killed_at(step, workspace.fork)
        if (workspace.root / ".git/grug/journal.json").exists():
            return
    raise AssertionError("no journal was seen")


def test_the_next_command_finishes_and_says_so(workspace, capsys):
    killed_with_a_journal(workspace)
    assert workspace.run("drift") == 0
    captured = capsys.readouterr()
    assert captured.err == f"finished what was interrupted: fork of {BASE} as {COPY}\n"
    assert "relu: lacks nothing of base" in captured.out and workspace.faults() == []


def test_what_was_edited_after_the_kill_is_kept(workspace, capsys):
    killed_with_a_journal(workspace)
    mine = workspace.write(f"{COPY}/model.py", "mine")
    for _ in range(2):
        assert workspace.run("drift") == 1
        error = capsys.readouterr().err
        assert f"{COPY}/model.py: was edited while this was interrupted" in error
        assert error.count("\n") == 1 and mine.read_text() == "mine"
    mine.unlink()
    assert workspace.run("drift") == 0 and workspace.faults() == []


def test_an_interrupted_change_can_be_forgotten(workspace, capsys):
    killed_with_a_journal(workspace)
    workspace.write(f"{COPY}/model.py", "mine")
    assert workspace.run("recover", "--abandon") == 0
    assert "forgot what was interrupted" in capsys.readouterr().out
    no_debris(workspace)
    assert workspace.run("recover") == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 9}', "\0"])
def test_a_damaged_journal_is_no_traceback(workspace, capsys, text):
    assert workspace.run("recover") == 0
    (workspace.root / ".git/grug/journal.json").write_text(text)
    assert workspace.fork() == 1
    assert "journal.json: cannot be read" in capsys.readouterr().err


def test_two_commands_do_not_interleave(workspace, capsys):
    with locked(workspace.root / ".git/grug"):
        assert workspace.fork() == 1
    assert "another such command is at work" in capsys.readouterr().err
    assert workspace.fork() == 0


def test_a_save_before_the_change_holds_is_not_overwritten(workspace, monkeypatch, capsys):
    """An editor saves, or creates, a file between the plan and the point of no return."""
    before = workspace.state()
    for path in (LEDGER, f"{BASE}/model.py", COPY):
        prepare = transaction._prepare

        def saved(root, staged, change, path=path, prepare=prepare):
            workspace.write(path, "mine")
            return prepare(root, staged, change)

        with monkeypatch.context() as patch:
            patch.setattr(transaction, "_prepare", saved)
            assert workspace.fork() == 1
        assert f"{path}: was changed meanwhile" in capsys.readouterr().err
        now = workspace.state()
        assert now.pop(path)[1] == b"mine"
        assert now == {key: value for key, value in before.items() if key != path}
        no_debris(workspace)
        (workspace.root / path).unlink()
        workspace.git("checkout", "-q", ".")


def test_nothing_outside_the_workspace_and_no_link_is_written(tmp_path):
    root, state = tmp_path / "root", tmp_path / "state"
    (root / "inside").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "link").symlink_to("inside/target")
    for path in ("../x", "out/x", "inside/../../x"):
        change = Change("x")
        change.put(path, None, File(b"x"))
        with pytest.raises(ToolError, match="leads out of the workspace"):
            carry_out(root, state, change)
    change = Change("x", fingerprints={"link": "link inside/target"}, writes={"link": File(b"x")})
    with pytest.raises(ToolError, match="is no regular file"):
        carry_out(root, state, change)
    assert not (tmp_path / "x").exists() and recover(root, state) is None


def test_permissions_stay_but_for_the_run_bit(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"a")
    file.chmod(0o640)
    change = Change("x")
    change.put("file", File(b"a"), File(b"b", "executable"))
    carry_out(tmp_path, tmp_path / "state", change)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"b", 0o750)
