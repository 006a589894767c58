"""Who listens to a run: each of them may fail or stand still, once, at every moment."""

import json
import os
import sys
import threading
import time
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.harness import under_test

listeners, runlog = under_test().listeners, under_test().runlog


def row(step: int) -> dict[str, float]:
    return {"step": step, "train/loss": 3.0, "throughput/tokens_per_second": 1.0}


def test_without_wandb_one_line_names_the_command_that_adds_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(listeners.ListenerError) as raised:
        listeners.import_wandb()
    message = str(raised.value)
    assert "\n" not in message and "./pants run locks -- add wandb" in message


class Trouble:
    """A listener that fails, or hangs, at one moment."""

    def __init__(self, moment: str, hangs: bool):
        self.moment, self.hangs, self.heard = moment, hangs, []
        self.end = threading.Event()

    def meet(self, moment: str) -> None:
        if moment == self.moment:
            if self.hangs:
                self.end.wait(60)
            raise OSError(28, "No space left on device")  # after it was dropped, of no interest

    def open(self):
        self.meet("open")

        def hear(row) -> None:
            self.meet("hear")
            self.heard.append(int(row["step"]))

        return hear, lambda: self.meet("close")


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("moment", ["open", "hear", "close", "never"])
def test_trouble_is_told_once_and_costs_a_limited_time(moment, hangs, capsys, monkeypatch):
    monkeypatch.setattr(listeners, "PATIENCE", 0.2)
    monkeypatch.setattr(listeners, "QUEUE", 5)
    trouble = Trouble(moment, hangs)
    start = time.monotonic()
    listener = listeners.Listener("trouble", trouble.open)
    for step in range(1, 51):
        listener.hear(row(step))
    listener.close()
    assert time.monotonic() - start < 10
    trouble.end.set()
    listener._thread.join(10)
    told = capsys.readouterr().err.splitlines()
    if moment == "never":
        assert not told and trouble.heard == [*range(1, 51)]
        return
    assert len(told) == 1, told
    assert told[0].startswith("trouble dropped, the run goes on without: ")
    reason = "it has " if hangs else "No space left on device"
    assert reason in told[0] and listener.dropped


class Disk:
    """Stands where tensorboardX writes its events; it is full from the nth call of a method on."""

    def __init__(self, method: str, n: int, monkeypatch):
        from tensorboardX.record_writer import RecordWriter

        self.calls = 0
        original = getattr(RecordWriter, method)

        def wrapped(writer, *arguments):
            self.calls += 1
            if self.calls >= n:
                raise OSError(28, "No space left on device")
            return original(writer, *arguments)

        monkeypatch.setattr(RecordWriter, method, wrapped)


CONFIG = {"seed": 0, "steps": 9}


def run_log(run_dir, *, step: int = 0, **options):
    told = {"tensorboard": False, "wandb": False, **options}
    return runlog.RunLog(str(run_dir), CONFIG, step, 9, **told)


@pytest.mark.parametrize("method, n", [("write", 1), ("write", 8), ("flush", 1), ("close", 1)])
def test_tensorboard_on_a_full_disk(method, n, tmp_path, monkeypatch, capsys):
    disk = Disk(method, n, monkeypatch)
    log = run_log(tmp_path, tensorboard=True)
    for step in range(1, 10):
        log.write(row(step))
    log.close()
    assert disk.calls >= n
    message = "TensorBoard dropped, the run goes on without: No space left on device"
    assert capsys.readouterr().err.splitlines() == [message]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, 10)]


def test_tensorboards_events_can_be_read(tmp_path):
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2
    log = run_log(tmp_path, tensorboard=True)
    for step in (1, 2):
        log.write(row(step))
    log.close()
    log = run_log(tmp_path, step=1, tensorboard=True)
    log.write(row(2))
    log.close()
    events = []
    for path in (tmp_path / "tensorboard").iterdir():
        content, own = path.read_bytes(), []
        while content:
            size = int.from_bytes(content[:8], "little")
            own.append(messages.Event.FromString(content[12 : 12 + size]))
            content = content[12 + size + 4 :]
        assert own[0].file_version == "brain.Event:2"
        events.append([e for e in own if e.session_log.status or e.summary.value])
    first, second = sorted(events, key=len, reverse=True)
    assert (first[0].step, second[0].step) == (1, 2)  # what is purged, from this step on
    assert first[0].session_log.status == second[0].session_log.status == 1
    for told, steps in ((first, [1, 2]), (second, [2])):
        scalars = [e for e in told if e.step in steps and e.summary.value]
        assert [e.step for e in scalars] == steps
        values = {v.tag: v.simple_value for v in scalars[0].summary.value}
        assert values == {k: v for k, v in row(1).items() if k != "step"}


@pytest.mark.parametrize("moment", ["init", "log", "finish"])
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
def test_wandb_in_trouble(moment, hangs, tmp_path, monkeypatch, capsys):
    """A stand-in for the package, which no lock names; tests/slow/wandb has the real one."""
    monkeypatch.setattr(listeners, "PATIENCE", 0.2)
    monkeypatch.setattr(listeners, "QUEUE", 2)
    end = threading.Event()

    def meet(name: str):
        if name == moment:
            if not hangs:
                raise RuntimeError("api key not configured\ncall wandb login")
            end.wait(60)

    def init(**settings):
        meet("init")
        return SimpleNamespace(log=lambda *a, **k: meet("log"), finish=lambda: meet("finish"))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    (tmp_path / "run.json").write_text("{}")
    start = time.monotonic()
    log = run_log(tmp_path, wandb=True)
    for step in range(1, 10):
        log.write(row(step))
    log.close()
    assert time.monotonic() - start < 10
    end.set()
    (told,) = capsys.readouterr().err.splitlines()
    reason = "it has " if hangs else "RuntimeError: api key not configured"
    assert told.startswith(f"W&B dropped, the run goes on without: {reason}")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


def test_a_bar_on_a_terminal_that_goes_away(tmp_path, monkeypatch, capfd):
    """As when a connection is closed: writing to the terminal fails from then on."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    log = run_log(tmp_path)
    log.write(row(1))
    time.sleep(0.3)
    shown = os.read(master, 65536).decode()
    os.close(master)
    for step in range(2, 10):
        log.write(row(step))
    log.close()
    monkeypatch.undo()
    with pytest.raises(OSError, match="Input/output error"):
        stream.close()
    assert "step 0/9" in shown
    assert "Traceback" not in capfd.readouterr().err
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize("rows, batch, steps", [(10, 4, 12), (7, 7, 5), (8, 4, 6), (1000, 8, 50)])
def test_a_line_when_an_epoch_begins(rows, batch, steps, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    hear, _ = listeners.Progress(0, steps, Fraction(rows, batch)).open()
    expected = []
    for step in range(1, steps + 1):
        hear(row(step))
        read = range((step - 1) * batch, step * batch)  # the rows of this step, counted from 0
        begun = [i // rows + 1 for i in read if i % rows == 0 and i > 0]
        expected += [f"step {step}: epoch {n} of {-(-steps * batch // rows)} begins" for n in begun]
    told = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert told == expected
    assert bool(told) == (rows < 1000)


def test_of_many_epochs_about_twenty_are_told(capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    hear, _ = listeners.Progress(0, 1000, Fraction(1)).open()
    for step in range(1, 1001):
        hear(row(step))
    told = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert 15 <= len(told) <= 20 and told[0] == "step 51: epoch 51 of 1000 begins"
