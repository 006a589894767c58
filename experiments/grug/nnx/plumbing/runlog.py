"""A run's metrics and progress while it runs."""

import contextlib
import json
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import jax

from .listeners import Listener, Opened, Progress, open_tensorboard, open_wandb
from .processes import from_first
from .record import peak_flops, read_metrics
from .storage import Folder, StorageError
from .terminal import one_line, say, tell

LAST_SEND = 300.0  # seconds that the last upload may take


class StepMeter:
    """Turns one step's device metrics into a row of floats with its throughput."""

    def __init__(self, *, tokens_per_step: int, flops_per_token: float):
        self.tokens_per_step, self.flops_per_token = tokens_per_step, flops_per_token
        self.peak = peak_flops()
        self.restart()

    def restart(self) -> None:
        """Starts timing anew, so that an evaluation or a save does not count as step time."""
        self.last = time.perf_counter()

    def skip(self, seconds: float) -> None:
        """Leaves the last seconds out of the step's time."""
        self.last += seconds

    @partial(jax.profiler.annotate_function, name="run/waiting")
    def row(self, step: int, metrics: Mapping[str, Any], loading_time: float) -> dict[str, float]:
        """Waits for the step's metrics and returns them with throughput; times are in seconds.

        Of a skipped update, what is not finite is left out.

        Raises:
            FloatingPointError: a metric of an update that was made is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
        if values.get("train/skipped"):
            values = {name: value for name, value in values.items() if math.isfinite(value)}
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"step {step} is not finite: {values}")
        now = time.perf_counter()
        step_time, self.last = now - self.last, now
        speed = self.tokens_per_step / step_time
        values |= {
            "step": step,
            "throughput/tokens_per_second": speed,
            "throughput/step_time": step_time,
            "throughput/loading_time": loading_time,
            "throughput/total_tokens": step * self.tokens_per_step,
            "throughput/flops_per_token": self.flops_per_token,
        }
        if self.peak:
            values["throughput/mfu"] = speed * self.flops_per_token / self.peak
        return values


class MetricsFile:
    """A file that grows by lines of JSON. What could not be written is written before the next."""

    def __init__(self, path: Path):
        self.path, self._left = path, b""
        self._file = open(path, "ab", buffering=0)

    def append(self, row: Mapping[str, float]) -> None:
        """Adds a line. Raises OSError if not all of it could be written."""
        self._left += encode_row(row)
        self.write_left()

    def write_left(self) -> None:
        """Writes what is left of lines added before. Raises OSError."""
        while self._left:
            self._left = self._left[self._file.write(self._left) :]

    def sync(self) -> None:
        """Waits until what was written is on the disk. Raises OSError."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Tries once more to write what is left. Raises OSError."""
        with self._file:
            self.write_left()


def encode_row(row: Mapping[str, float]) -> bytes:
    """A line of metrics.jsonl. JSON knows no NaN: what is not finite is left out."""
    finite = {name: value for name, value in row.items() if math.isfinite(value)}
    return (json.dumps(finite, allow_nan=False) + "\n").encode()


class Mirror:
    """A local directory whose files a thread copies to a bucket, since an object cannot grow.

    Each changed file is sent whole every `every` seconds (less often if sending is slow) and once
    more at the end.
    """

    def __init__(self, folder: Folder, *, every: float = 30.0):
        """Raises OSError if there is no place for a temporary directory."""
        self.folder, self.every = folder, every
        self.path = Path(tempfile.mkdtemp(prefix="grug-run-"))
        self._sent: dict[Path, tuple[int, int]] = {}
        self._locks: dict[Path, threading.Lock] = {}
        self._stop, self._error = threading.Event(), ""
        self._thread = threading.Thread(target=self._run, daemon=True, name="mirror")
        self._thread.start()

    def _run(self) -> None:
        pause, going_on = self.every, True
        while going_on:
            going_on = not self._stop.wait(pause)
            start, before = time.perf_counter(), self._error
            try:
                self.send()
                self._error = ""
            except Exception as error:  # whatever it is, the next one may succeed
                self._error = one_line(error)
                if going_on and not before:  # once per outage
                    tell(f"metrics not sent, to be tried again: {self._error}")
            pause = max(self.every, 20 * (time.perf_counter() - start))

    def send(self, pattern: str = "**/*") -> None:
        """Sends the files that changed since they were last sent. Raises StorageError, OSError."""
        for path in sorted(p for p in self.path.glob(pattern) if p.is_file()):
            # One at a time, so that an older content never replaces a newer one.
            with self._locks.setdefault(path, threading.Lock()):
                state = path.stat()
                version = (state.st_mtime_ns, state.st_size)
                if self._sent.get(path) != version:
                    name = path.relative_to(self.path).as_posix()
                    self.folder.write(name, path.read_bytes())
                    self._sent[path] = version

    def close(self) -> None:
        """Sends the rest and removes the directory; keeps it, and says where, if that fails."""
        self._stop.set()
        self._thread.join(LAST_SEND)
        if self._thread.is_alive():
            self._error = f"it has taken longer than {LAST_SEND:.0f} s"
        if self._error:
            tell(f"metrics not sent, they are in {self.path}: {self._error}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)


class RunLog:
    """metrics.jsonl, one line per step, and listeners: a terminal, TensorBoard, W&B.

    Process 0 writes; the others only keep the history. In a bucket, files appear half a minute
    late. metrics.jsonl is the record: if it cannot be written, the run saves its state and stops.
    A listener that fails is dropped.

    Raises:
        StorageError: metrics.jsonl cannot be opened, or, on closing, could not be written.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: Mapping[str, Any],
        step: int,
        steps: int,
        *,
        tensorboard: bool,
        wandb: bool,
        epoch: Fraction | None = None,
        begin: int = 0,
    ):
        """Drops the lines after `step`: a resumed run makes those updates again.

        `epoch`: the number of updates that read all of the data once.
        `begin`: the step after which the run's lines begin; of a branch, where it branched off.
        """
        self.config, self.epoch, self.begin = config, epoch, begin
        self.steps, self.started, self.first = steps, time.perf_counter(), step
        self.history = [
            row for row in read_metrics(f"{run_dir}/metrics.jsonl") if row["step"] <= step
        ]
        self.folder, self.failure = Folder(run_dir), ""
        self._file: MetricsFile | None = None
        self._mirror: Mirror | None = None
        self._listeners: list[Listener] = []
        if jax.process_index() == 0:
            self._tell_missing()
            self._open()
            if step < steps:  # else there is nothing to tell the listeners
                self._listen(tensorboard=tensorboard, wandb=wandb)

    def _tell_missing(self) -> None:
        there = {int(row["step"]) for row in self.history}
        own = range(self.begin + 1, self.first + 1)
        missing = [step for step in own if step not in there]
        if missing:
            tell(
                f"metrics.jsonl lacks {len(missing)} of the {len(own)} steps before this start "
                f"(of steps {missing[0]} to {missing[-1]}): they are lost, and the run goes on"
            )

    def _open(self) -> None:
        rows = b"".join(map(encode_row, self.history))
        self.folder.write("metrics.jsonl", rows)
        try:
            path = self.folder.local
            if path is None:
                self._mirror = Mirror(self.folder)
                path = self._mirror.path
                (path / "metrics.jsonl").write_bytes(rows)
            self._file = MetricsFile(path / "metrics.jsonl")
        except OSError as error:
            raise StorageError(f"metrics cannot be written: {one_line(error)}") from error

    def _listen(self, *, tensorboard: bool, wandb: bool) -> None:
        assert self._file
        path, config = self._file.path.parent, self.config
        progress = Progress(self.first, self.steps, self.epoch)
        if self.epoch:
            epochs, each = float(self.steps / self.epoch), float(self.epoch)
            say(f"{epochs:,.2f} epochs, each of {each:,.1f} steps")
        opening: dict[str, Callable[[], Opened]] = {}
        if tensorboard:
            opening["TensorBoard"] = lambda: open_tensorboard(path, config, self.first)
        if wandb:
            opening["W&B"] = lambda: open_wandb(self.folder, path, config)
        opening["progress"] = progress.open
        self._listeners = [Listener(name, opened) for name, opened in opening.items()]

    @partial(jax.profiler.annotate_function, name="run/logging")
    def write(self, row: dict[str, float]) -> None:
        """Adds the row of one step, `row["step"]`.

        Raises:
            FloatingPointError: a value is not finite; the others are written.
        """
        bad = {name: value for name, value in row.items() if not math.isfinite(value)}
        row = {name: value for name, value in row.items() if name not in bad}
        self.history.append(row)
        if self._file:
            try:
                self._file.append(row)
            except OSError as error:
                self._fail(self._file.path, error)
        for listener in self._listeners:
            listener.hear(row)
        if bad:
            raise FloatingPointError(f"step {row['step']:.0f} is not finite: {bad}")

    def _fail(self, path: Path, error: OSError) -> None:
        if not self.failure:
            self.failure = f"{path} cannot be written: {one_line(error)}"
            tell(f"{self.failure}: the run saves its state and stops")
            # What stops all processes after one and the same step, their state saved.
            signal.raise_signal(signal.SIGTERM)

    def flush(self) -> None:
        """Waits until the rows so far outlive this process, or machine. Any thread may call it.

        Raises:
            StorageError: they do not. (Once that is known, it is no reason not to save the state.)
        """
        if self.failure:
            self._write_anew()
        elif self._file:
            try:
                if self._mirror:
                    self._mirror.send("metrics.jsonl")
                else:
                    self._file.sync()
            except OSError as error:
                raise StorageError(f"metrics cannot be written: {one_line(error)}") from error

    def _write_anew(self) -> None:
        """What cannot grow may still be replaced: a full disk of its mirror is not the bucket's."""
        with contextlib.suppress(StorageError):
            rows = b"".join(map(encode_row, list(self.history)))
            self.folder.write("metrics.jsonl", rows)

    def close(self) -> None:
        """Closes files and listeners, each within a limited time; a mirror sends what is left."""
        for listener in reversed(self._listeners):
            listener.close()
        if self._file:
            try:
                self._file.close()
            except OSError as error:
                self.failure = self.failure or f"{self._file.path}: {one_line(error)}"
        if self._mirror:
            self._mirror.close()
        self._listeners, self._file, self._mirror = [], None, None
        if self.failure:
            self._write_anew()  # after the mirror, which knows less
            raise StorageError(f"{self.failure}; mend that, and go on with --resume")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Closes. Raises StorageError in every process if process 0 could not write the metrics."""
        try:
            self.close()
        except StorageError:
            if error is None and jax.process_count() == 1:
                raise
        if error is None and jax.process_count() > 1 and from_first(int(bool(self.failure))):
            failure = self.failure or "process 0 cannot write metrics.jsonl"
            raise StorageError(f"{failure}; mend that, and go on with --resume")
