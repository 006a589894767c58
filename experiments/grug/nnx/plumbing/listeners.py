"""Who hears of a run's metrics besides metrics.jsonl: a terminal, TensorBoard, W&B.

None of them ends the run or holds it up.
"""

import contextlib
import math
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from .record import VARIANT, wandb_id
from .storage import Folder
from .terminal import one_line, say, tell

PATIENCE = 60.0  # seconds for which the run waits for a listener
QUEUE = 1000  # rows that a listener may be behind
FLUSH_EVERY = 30.0  # seconds between writes of TensorBoard's events
REDRAW_EVERY = 0.1  # seconds

Row = Mapping[str, float]
Opened = tuple[Callable[[Row], None], Callable[[], None]]
"""A function that hears of the row of a step, and one that closes."""


class Listener:
    """One that hears of each row, in a thread of its own: it cannot end the run or hold it up.

    If it fails, or takes nothing for PATIENCE seconds, that is told once, in one line, and it hears
    nothing more.
    """

    def __init__(self, name: str, opened: Callable[[], Opened]):
        """`opened` makes a function that hears and one that closes; it has PATIENCE seconds."""
        self.name, self.dropped = name, False
        self._rows: queue.Queue[Row | None] = queue.Queue(QUEUE)
        self._ready, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, args=(opened,), daemon=True, name=name)
        self._thread.start()
        self._ready.wait(PATIENCE)  # what takes longer opens while the run goes on

    def _run(self, opened: Callable[[], Opened]) -> None:
        try:
            hear, close = opened()
            self._ready.set()
            try:
                while (row := self._rows.get()) is not None:
                    hear(row)
            except BaseException as error:
                self._drop(one_line(error))
                with contextlib.suppress(Exception):
                    close()
            else:
                close()
        except BaseException as error:
            self._drop(one_line(error))
        self._ready.set()

    def _drop(self, reason: str) -> None:
        with self._lock:  # the run and the thread may both have something to say
            told, self.dropped = self.dropped, True
        if not told:
            tell(f"{self.name} dropped, the run goes on without: {reason}")

    def hear(self, row: Row) -> None:
        """Passes a row on; waits PATIENCE seconds at most for one that is behind."""
        if not self.dropped:
            try:
                self._rows.put(row, timeout=PATIENCE)
            except queue.Full:
                self._drop(f"it has taken nothing for {PATIENCE:.0f} s")

    def close(self) -> None:
        """Closes it when it has heard everything; waits PATIENCE seconds at most for that."""
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(queue.Full):
            self._rows.put(None, timeout=0 if self.dropped else PATIENCE)
        if not self.dropped:
            self._thread.join(max(0.0, end - time.monotonic()))
            if self._thread.is_alive():
                self._drop(f"it has not closed within {PATIENCE:.0f} s")


class ListenerError(ValueError):
    """What metrics should be sent to is not installed; one line that names the remedy."""


def import_wandb() -> Any:
    """The package wandb, which no lock names. Raises ListenerError if it is not installed."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ListenerError(
            f"--wandb: there is no package {error.name}: add it by ./pants run locks -- add wandb, "
            "and to a bundle by packing that anew"
        ) from error
    return wandb


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested settings by names such as `model.d_model`; what is no number or text as text."""
    settings: dict[str, bool | int | float | str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            settings[prefix + name] = value if plain else str(value)
    return settings


def open_tensorboard(path: Path, config: Mapping[str, Any], first: int) -> Opened:
    """Writes events below `path`, for a run that goes on after step `first`."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import Summary, hparams, scalar

    messages: Any = event_pb2  # whose names protobuf makes when it is imported
    (path / "tensorboard").mkdir(exist_ok=True)
    # A start within the same second must not write over what an earlier one has written.
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
    # Not SummaryWriter: its own thread dies of a full disk, and whoever writes then waits for it
    # forever.
    writer = RecordWriter(str(path / "tensorboard" / name))

    def add(step: int = 0, **content: Any) -> None:
        event = messages.Event(wall_time=time.time(), step=step, **content)
        writer.write(event.SerializeToString())

    add(file_version="brain.Event:2")
    # TensorBoard hides what an earlier start has written from this step on.
    add(first + 1, session_log=messages.SessionLog(status=messages.SessionLog.START))
    # Not by add_hparams(), which writes them as a run of its own.
    for summary in hparams(flat(config), dict.fromkeys(("train/loss", "eval/bpb"))):
        add(summary=summary)
    writer.flush()
    flushed = time.monotonic()

    def hear(row: Row) -> None:
        nonlocal flushed
        names = sorted(row.keys() - {"step"})
        values = [value for name in names for value in scalar(name, row[name]).value]
        add(int(row["step"]), summary=Summary(value=values))
        if time.monotonic() - flushed > FLUSH_EVERY:
            writer.flush()
            flushed = time.monotonic()

    return hear, writer.close


def open_wandb(folder: Folder, path: Path, config: Mapping[str, Any]) -> Opened:
    """Logs to W&B, whose own files go to `path`. Raises what the package raises."""
    run = import_wandb().init(
        project="grug",
        id=wandb_id(folder),
        resume="allow",  # the run of that id, if W&B has it
        name=folder.url.rstrip("/").rpartition("/")[2],
        group=VARIANT,
        tags=[VARIANT, f"seed {config['seed']}"],
        config={**config, "variant": VARIANT},
        dir=str(path),
    )
    return lambda row: run.log(dict(row), step=int(row["step"])), run.finish


class Progress:
    """A bar on a terminal, else lines: speed, losses, and when an epoch begins."""

    def __init__(self, first: int, steps: int, epoch: Fraction | None):
        """For the steps after `first`; `epoch` is the number of steps that read all data once."""
        self.first, self.steps, self.epoch = first, steps, epoch
        self.started = time.perf_counter()

    def open(self) -> Opened:
        """As a listener."""
        # A bar redraws itself with escape codes, which NO_COLOR (no-color.org) asks to leave out.
        if os.environ.get("NO_COLOR") or not sys.stderr or not sys.stderr.isatty():
            return self._show_line, lambda: None
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[status]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,  # by a thread of its own, whose failure nobody would notice
            redirect_stdout=False,
        )
        task = bar.add_task("", total=self.steps, completed=self.first, status="compiling")
        bar.start()
        bar.refresh()
        drawn = time.monotonic()

        def hear(row: Row) -> None:
            nonlocal drawn
            step, (status, held_out) = int(row["step"]), self._texts(row)
            due = time.monotonic() - drawn > REDRAW_EVERY or step == self.steps
            bar.update(task, completed=step, status=status, refresh=due)
            drawn = time.monotonic() if due else drawn
            if line := self._epoch_begins(step):
                bar.console.print(line)
            if held_out:
                bar.console.print(f"step {step}{held_out}")

        return hear, bar.stop

    def _show_line(self, row: Row) -> None:
        step, (status, held_out) = int(row["step"]), self._texts(row)
        if line := self._epoch_begins(step):
            say(line)
        if held_out or step % max(1, self.steps // 20) == 0 or step == self.first + 1:
            elapsed = time.perf_counter() - self.started
            seconds_left = elapsed / (step - self.first) * (self.steps - step)
            say(f"step {step}/{self.steps}  {status}  {seconds_left:.0f} s left{held_out}")

    def _texts(self, row: Row) -> tuple[str, str]:
        speed = row["throughput/tokens_per_second"]
        known = "eval/bpb" in row
        held_out = f"  held out {row['eval/bpb']:.3f} bits per byte" if known else ""
        return f"loss {row.get('train/loss', math.nan):.3f}  {speed:,.0f} tokens/s", held_out

    def _epoch_begins(self, step: int) -> str:
        """A line if this step is the first to read some of the data once more; "" otherwise.

        Of more than 20 epochs, every twentieth part of them is told.
        """
        if not self.epoch or step == 1:
            return ""
        epoch, last = math.ceil(step / self.epoch), math.ceil(self.steps / self.epoch)
        begins = epoch > math.ceil((step - 1) / self.epoch)
        told = (epoch - 1) % max(1, last // 20) == 0
        return f"step {step}: epoch {epoch} of {last} begins" if begins and told else ""
