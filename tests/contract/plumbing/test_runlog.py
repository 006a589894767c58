"""metrics.jsonl is the record: all of it, on the disk, as JSON; or the run stops and says so."""

import contextlib
import json
import math
import os
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from tests.contract.harness import rows, under_test

record, runlog, storage = under_test().record, under_test().runlog, under_test().storage


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/loss": 3.0, "throughput/tokens_per_second": 1.0, **more}


def run_log(run_dir: Path, step: int = 0, **options):
    return runlog.RunLog(
        str(run_dir), {"seed": 0}, step, 9, tensorboard=False, wandb=False, **options
    )


@pytest.fixture
def stopped(monkeypatch):
    """Notes what asks the run to stop."""
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    yield noted
    signal.signal(signal.SIGTERM, before)


class Disk:
    """Stands where a MetricsFile writes. `room` is the number of bytes that still go onto it."""

    def __init__(self, file):
        self.file, self.room = file, math.inf

    def write(self, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(28, "No space left on device")
        written = self.file.write(data[: int(min(self.room, len(data)))])
        self.room -= written
        return written

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_stops_the_run_in_one_line(tmp_path, stopped, capsys, monkeypatch):
    log = run_log(tmp_path)
    log.write(row(1))
    disk = log._file._file = Disk(log._file._file)
    disk.room = 30
    for step in (2, 3):
        log.write(row(step))
    assert stopped == [signal.SIGTERM]
    message = f"{tmp_path}/metrics.jsonl cannot be written: No space left on device"
    assert capsys.readouterr().err == f"{message}: the run saves its state and stops\n"
    assert record.read_metrics(f"{tmp_path}/metrics.jsonl") == [row(1)]  # and part of a line
    monkeypatch.setattr(storage.Folder, "write", refuse)
    log.flush()  # the state is saved nevertheless
    with pytest.raises(storage.StorageError, match=r"No space left on device; .*--resume$"):
        log.close()
    assert capsys.readouterr().err == ""


def refuse(folder, name: str, content: bytes) -> None:
    raise storage.StorageError(f"{name}: No space left on device")


@pytest.mark.parametrize("when", ["before a commit", "at the end"])
def test_a_file_that_cannot_grow_is_written_anew(tmp_path, stopped, when):
    """As where the mirror's disk is full: the bucket's is not."""
    log = run_log(tmp_path)
    disk = log._file._file = Disk(log._file._file)
    disk.room = 30
    for step in (1, 2, 3):
        log.write(row(step))
    if when == "before a commit":
        log.flush()
        assert rows(tmp_path) == [row(1), row(2), row(3)]
    with pytest.raises(storage.StorageError):
        log.close()
    assert rows(tmp_path) == [row(1), row(2), row(3)]


def test_when_there_is_room_again_nothing_is_missing(tmp_path, stopped, monkeypatch):
    log = run_log(tmp_path)
    disk = log._file._file = Disk(log._file._file)
    disk.room = 30
    log.write(row(1))
    disk.room = math.inf
    log.write(row(2))
    disk.room = 10
    log.write(row(3))
    disk.room = math.inf
    monkeypatch.setattr(storage.Folder, "write", refuse)
    with pytest.raises(storage.StorageError):
        log.close()
    assert rows(tmp_path) == [row(1), row(2), row(3)]


def test_another_failure_is_not_hidden_by_that_of_the_metrics(tmp_path, stopped, capsys):

    def fail(error: Exception | None) -> None:
        with run_log(tmp_path) as log:
            disk = log._file._file = Disk(log._file._file)
            disk.room = 0
            log.write(row(1))
            if error:
                raise error

    with pytest.raises(KeyError, match="its own"):
        fail(KeyError("its own"))
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(storage.StorageError, match="cannot be written"):
        fail(None)


def test_metrics_that_cannot_be_opened(tmp_path, monkeypatch):
    def fail(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(runlog, "MetricsFile", fail)
    with pytest.raises(storage.StorageError, match="cannot be written: .*jsonl: Permission denied"):
        run_log(tmp_path)


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def strict_rows(run_dir: Path) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=no_constant) for line in lines]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_the_run_and_is_not_written(tmp_path, value):
    log = run_log(tmp_path)
    log.write(row(1))
    with pytest.raises(FloatingPointError, match="step 2 is not finite: {'eval/bpb': "):
        log.write(row(2, **{"eval/bpb": value, "eval/loss": 2.0}))
    log.close()
    assert strict_rows(tmp_path) == [row(1), row(2, **{"eval/loss": 2.0})]
    # What an older run has left is no reason not to go on.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        print(json.dumps(row(3, **{"eval/bpb": value})), file=file)
    run_log(tmp_path, 3).close()
    assert strict_rows(tmp_path)[-1] == row(3)


@pytest.mark.parametrize(
    "steps, message",
    [
        ([1, 2, 3, 4, 5], ""),
        ([1, 2, 3, 4, 5, 6], ""),
        ([1, 2], "lacks 3 of the 5 steps before this start (of steps 3 to 5)"),
        ([1, 3, 5], "lacks 2 of the 5 steps before this start (of steps 2 to 4)"),
        ([], "lacks 5 of the 5 steps before this start (of steps 1 to 5)"),
    ],
)
def test_metrics_that_are_missing_before_a_checkpoint_are_told(tmp_path, capsys, steps, message):
    lines = "".join(json.dumps(row(step)) + "\n" for step in steps)
    (tmp_path / "metrics.jsonl").write_text(lines)
    run_log(tmp_path, 5).close()
    told = capsys.readouterr().err.splitlines()
    assert [message in line for line in told] == ([True] if message else [])
    assert [r["step"] for r in rows(tmp_path)] == [step for step in steps if step <= 5]


def test_a_broken_line_takes_no_others_with_it(tmp_path, capsys):
    lines = [json.dumps(row(step)) for step in range(1, 6)]
    lines[2] = "\0" * 40
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n5\n{"step": 6, "tr')
    run_log(tmp_path, 5).close()
    assert [r["step"] for r in rows(tmp_path)] == [1, 2, 4, 5]
    assert "lacks 1 of the 5 steps before this start (of steps 3 to 3)" in capsys.readouterr().err


def test_flush_waits_for_the_disk(tmp_path, monkeypatch):
    log, synced = run_log(tmp_path), []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((os.fstat(file).st_size, fsync(file)))
    )
    log.write(row(1))
    log.flush()
    assert synced == [((tmp_path / "metrics.jsonl").stat().st_size, None)]

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(storage.StorageError, match="metrics cannot be written: Input/output error"):
        log.flush()
    log.close()


def test_epochs_are_told_at_the_start(tmp_path, capsys):
    with contextlib.closing(run_log(tmp_path, epoch=Fraction(10, 4))):
        assert capsys.readouterr().out == "3.60 epochs, each of 2.5 steps\n"
    run_log(tmp_path, 9, epoch=Fraction(10, 4)).close()
    assert capsys.readouterr().out == ""


def test_a_mirror_that_fails_is_told_once_and_sends_later(tmp_path, monkeypatch, capsys):
    """The folder stands for a bucket: an outage, then all is well."""
    folder, away = storage.Folder(tmp_path / "bucket"), True

    def write(name: str, content: bytes) -> None:
        if away:
            raise RuntimeError("what no one has thought of")
        storage.Folder.write(folder, name, content)

    monkeypatch.setattr(folder, "write", write)
    mirror = runlog.Mirror(folder, every=0.01)
    (mirror.path / "metrics.jsonl").write_text("1\n")
    mirror._thread.join(0.5)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "metrics not sent, to be tried again: RuntimeError" in told[0]
    away = False
    mirror.close()
    assert folder.read("metrics.jsonl") == b"1\n" and not mirror.path.exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
def test_a_mirror_that_never_sends_is_closed_in_time(tmp_path, monkeypatch, capsys, hangs):
    monkeypatch.setattr(runlog, "LAST_SEND", 0.3 if hangs else 60.0)
    folder, end = storage.Folder(tmp_path / "bucket"), threading.Event()

    def write(name: str, content: bytes) -> None:
        end.wait(30 if hangs else 0)
        raise storage.StorageError("s3://bucket: the store does not answer")

    monkeypatch.setattr(folder, "write", write)
    mirror = runlog.Mirror(folder)
    (mirror.path / "metrics.jsonl").write_text("1\n")
    start = time.monotonic()
    mirror.close()
    assert time.monotonic() - start < 10
    end.set()
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"metrics not sent, they are in {mirror.path}: ")
    assert (mirror.path / "metrics.jsonl").read_text() == "1\n"
