"""A run's metrics and progress while it runs."""

import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from .record import VARIANT, peak_flops, read_metrics, wandb_id
from .storage import Folder, StorageError


class StepMeter:
    """Turns one step's device metrics into a row of floats with its throughput."""

    def __init__(self, *, tokens_per_step: int, flops_per_token: float):
        self.tokens_per_step, self.flops_per_token = tokens_per_step, flops_per_token
        self.peak = peak_flops()
        self.restart()

    def restart(self) -> None:
        """Starts timing anew, so that an evaluation or a save does not count as step time."""
        self.last = time.perf_counter()

    def row(self, step: int, metrics: Mapping[str, Any], loading_time: float) -> dict[str, float]:
        """Waits for the step's metrics and returns them with throughput; times are in seconds.

        Raises:
            FloatingPointError: a metric is not finite.
        """
        values = {name: float(value) for name, value in metrics.items()}
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


class Mirror:
    """A local directory whose files a thread copies to a bucket, since an object cannot grow.

    Each changed file is sent whole every `every` seconds (less often if sending is slow) and once
    more at the end.
    """

    def __init__(self, folder: Folder, *, every: float = 30.0):
        self.folder, self.every = folder, every
        self.path = Path(tempfile.mkdtemp(prefix="grug-run-"))
        self._sent: dict[Path, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = self.every
        while not self._stop.wait(pause):
            start = time.perf_counter()
            try:
                self.send()
            except StorageError as error:
                print(f"metrics not sent, to be tried again: {error}", file=sys.stderr)
            pause = max(self.every, 20 * (time.perf_counter() - start))

    def send(self) -> None:
        """Sends the files that changed since they were last sent. Raises StorageError."""
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            state = path.stat()
            version = (state.st_mtime_ns, state.st_size)
            if self._sent.get(path) != version:
                self.folder.write(path.relative_to(self.path).as_posix(), path.read_bytes())
                self._sent[path] = version

    def close(self) -> None:
        """Sends the rest and removes the directory; keeps it, and says where, if that fails."""
        self._stop.set()
        self._thread.join()
        try:
            self.send()
        except StorageError as error:
            print(f"metrics not sent, they are in {self.path}: {error}", file=sys.stderr)
        else:
            shutil.rmtree(self.path)


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


class RunLog:
    """metrics.jsonl, one line per step, and other listeners: a terminal, TensorBoard, W&B.

    Process 0 writes; the others only keep the history. In a bucket, files appear half a minute
    late.
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
    ):
        """Drops the lines after `step`: a resumed run makes those updates again."""
        self.config = config
        self.steps, self.started, self.first = steps, time.perf_counter(), step
        self.history = [
            row for row in read_metrics(f"{run_dir}/metrics.jsonl") if row["step"] <= step
        ]
        self.listeners: list[Callable[[int, dict[str, float]], None]] = []
        self.closers: list[Callable[[], None]] = []
        self.bar = None
        if jax.process_index() == 0:
            more = step < steps  # else there is nothing to tell TensorBoard and W&B
            self._open(Folder(run_dir), tensorboard=tensorboard and more, wandb=wandb and more)

    def _open(self, folder: Folder, *, tensorboard: bool, wandb: bool) -> None:
        rows = "".join(json.dumps(row) + "\n" for row in self.history)
        folder.write("metrics.jsonl", rows.encode())
        path = folder.local
        if path is None:
            mirror = Mirror(folder)
            path = mirror.path
            (path / "metrics.jsonl").write_text(rows)
            self.closers.append(mirror.close)
        file = open(path / "metrics.jsonl", "a", buffering=1)
        self.closers.append(file.close)
        self.listeners.append(lambda _, row: print(json.dumps(row), file=file))
        self.listeners.append(self._show)
        if tensorboard:
            self._tell_tensorboard(path)
        if wandb:
            self._tell_wandb(folder, path)
        # A bar redraws itself with escape codes, which NO_COLOR (no-color.org) asks to leave out.
        plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
        self.bar = None if plain else self._make_bar()

    def _tell_tensorboard(self, path: Path) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        writer = SummaryWriter(str(path / "tensorboard"), purge_step=self.first + 1)
        assert writer.file_writer
        # Not by add_hparams(), which writes them as a run of its own.
        for summary in hparams(flat(self.config), dict.fromkeys(("train/loss", "eval/bpb"))):
            writer.file_writer.add_summary(summary)

        def add_scalars(step: int, row: dict[str, float]) -> None:
            for name in row.keys() - {"step"}:
                writer.add_scalar(name, row[name], step)

        self.listeners.append(add_scalars)
        self.closers.append(writer.close)

    def _tell_wandb(self, folder: Folder, path: Path) -> None:
        run = import_wandb().init(
            project="grug",
            id=wandb_id(folder),
            resume="allow",  # the run of that id, if W&B has it
            name=folder.url.rstrip("/").rpartition("/")[2],
            group=VARIANT,
            tags=[VARIANT, f"seed {self.config['seed']}"],
            config={**self.config, "variant": VARIANT},
            dir=str(path),
        )
        self.listeners.append(lambda step, row: run.log(row, step=step))
        self.closers.append(run.finish)

    def _make_bar(self) -> Any:
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[status]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = bar.add_task("", total=self.steps, completed=self.first, status="compiling")
        bar.start()
        self.closers.append(bar.stop)
        return bar

    def write(self, row: dict[str, float]) -> None:
        """Adds the row of one step, `row["step"]`."""
        step = int(row["step"])
        self.history.append(row)
        for listen in self.listeners:
            listen(step, row)

    def _show(self, step: int, row: dict[str, float]) -> None:
        loss, speed = row["train/loss"], row["throughput/tokens_per_second"]
        held_out = f"  held out {row['eval/bpb']:.3f} bits per byte" if "eval/bpb" in row else ""
        if self.bar:
            status = f"loss {loss:.3f}  {speed:,.0f} tokens/s"
            self.bar.update(self.task, completed=step, status=status)
            if held_out:
                self.bar.console.print(f"step {step}{held_out}")
        elif held_out or step % max(1, self.steps // 20) == 0 or step == self.first + 1:
            elapsed = time.perf_counter() - self.started
            seconds_left = elapsed / (step - self.first) * (self.steps - step)
            print(
                f"step {step}/{self.steps}  loss {loss:.3f}  {speed:,.0f} tokens/s  "
                f"{seconds_left:.0f} s left{held_out}",
                flush=True,
            )

    def close(self) -> None:
        """Closes files and listeners; a mirror sends what is left."""
        for close in reversed(self.closers):
            close()
