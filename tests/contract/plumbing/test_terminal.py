"""What is printed reaches who reads it, as text; who does not read it holds nothing up."""

import contextlib
import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator

import pytest

from tests.contract.harness import under_test

terminal = under_test().terminal


@contextlib.contextmanager
def pipe() -> Generator[int]:
    """A pipe of one page as stdout; yields its end for reading. Not a fixture: pytest's capture
    sets stdout anew between fixtures and tests."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    before, stream = sys.stdout, os.fdopen(writer, "w", encoding="utf-8")
    sys.stdout = stream
    try:
        yield reader
    finally:
        sys.stdout = before
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):  # by what its buffer still holds
            stream.close()


def test_control_characters_are_escaped_and_text_is_not():
    shown = terminal.printable("\x1b]0;owned\x07\x1b[2Ja\rb\x9bc\u202ed\ud800 \x00")
    assert shown == r"\x1b]0;owned\x07\x1b[2Ja\rb\x9bc\u202ed\ud800 \x00"
    text = "naïve\tщё 日本語\u3000👩\u200d🔬\n\nend"
    assert terminal.printable(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert terminal.say("é 語 \ufffd")
    expected = {"ascii": r"\xe9 \u8a9e \ufffd", "latin-1": r"é \u8a9e \ufffd"}
    assert raw.getvalue().decode(encoding) == expected.get(encoding, "é 語 \ufffd") + "\n"


def test_a_long_text_passes_through_a_small_pipe():
    text, received = "日本" * 20_000, []
    size = len(text.encode()) + 1
    with pipe() as reader:

        def read() -> None:
            while sum(map(len, received)) < size:
                received.append(os.read(reader, 1000))

        thread = threading.Thread(target=read)
        thread.start()
        assert terminal.say(text)
        thread.join()
    assert b"".join(received).decode() == text + "\n"


def test_a_closed_pipe_is_told_once(capfd):
    with pipe() as reader:
        os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
        assert [terminal.say(f"line {i}") for i in range(3)] == [False, True, True]
        sys.stdout.flush()  # as at the end of a process: nothing is left that could fail again
    assert capfd.readouterr().err == "stdout: Broken pipe; nothing more is printed there\n"


def test_a_reader_that_stands_still_is_left_behind(capfd, monkeypatch):
    monkeypatch.setattr(terminal, "PATIENCE", 0.2)
    start = time.monotonic()
    with pipe():
        for _ in range(30):
            terminal.say("x" * 1000)
        sys.stdout.flush()
    assert time.monotonic() - start < 5
    message = "stdout: TimeoutError: nobody has read it for 0 s; nothing more is printed there\n"
    assert capfd.readouterr().err == message


def test_a_full_disk(capfd, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert not terminal.say("x")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()
    assert "stdout: No space left on device" in capfd.readouterr().err


CLOSED = """
import os, sys
before = [os.path.exists(f"/proc/self/fd/{number}") for number in (1, 2)]
from {package}.plumbing import terminal
terminal.say("said")
terminal.tell("told")
with open(sys.argv[1], "w") as file:
    os.write(1, b"by a library")
    os.write(2, b"by a library")
    sys.stdout.flush(), sys.stderr.flush()
    print(before, file=file)
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_were_closed_before_the_start(closed, tmp_path, variant):
    code = CLOSED.replace("{package}", variant.package)
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, str(tmp_path / "file")], capture_output=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    open_before = str([">&-" not in closed.split(), "2>&-" not in closed.split()])
    assert (tmp_path / "file").read_text() == open_before + "\n"


def test_stderr_that_is_gone_is_nobodys_trouble(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        terminal.tell("x")
        terminal.tell("y")
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            stream.close()


@pytest.mark.parametrize(
    "error", [ValueError("two\nlines"), KeyboardInterrupt(), OSError(28, "Full")]
)
def test_what_is_optional_fails_in_one_line(capsys, error):
    with terminal.optional("the show"):
        raise error
    expected = {ValueError: "ValueError: two", KeyboardInterrupt: "KeyboardInterrupt: "}
    message = expected.get(type(error), "Full")
    assert capsys.readouterr().err == f"the show left out: {message}\n"
