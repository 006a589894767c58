"""A run as it goes: its metrics and its progress."""

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

from .record import peak_flops, read_metrics
from .storage import Folder, StorageError


class StepMeter:
    """Turns one step's device metrics into a row of floats with its throughput."""

    def __init__(self, *, tokens_per_step: int, flops_per_token: float):
        self.tokens_per_step, self.flops_per_token = tokens_per_step, flops_per_token
        self.peak = peak_flops()
        self.restart()

    def restart(self) -> None:
        """Leaves what has passed since the last row (an evaluation, a save) out of the next."""
        self.last = time.perf_counter()

    def row(self, step: int, metrics: Mapping[str, Any], loading_time: float) -> dict[str, float]:
        """Waits for the step's result. Raises FloatingPointError when it is not finite."""
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
    """A local directory whose files a thread copies into a folder, since an object cannot grow.

    Each file that changed is sent whole, every `every` seconds, or less often where sending takes
    long, and once more at the end.
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
            began = time.perf_counter()
            try:
                self.send()
            except StorageError as error:
                print(f"metrics not sent, to be tried again: {error}", file=sys.stderr)
            pause = max(self.every, 20 * (time.perf_counter() - began))

    def send(self) -> None:
        """Sends what has changed since it was last sent."""
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            state = path.stat()
            seen = (state.st_mtime_ns, state.st_size)
            if self._sent.get(path) != seen:
                self.folder.write(path.relative_to(self.path).as_posix(), path.read_bytes())
                self._sent[path] = seen

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


class RunLog:
    """metrics.jsonl, one line a step, and whoever else listens: a terminal, TensorBoard, W&B.

    Process 0 writes; in the others it keeps the history alone. In a bucket, files appear half a
    minute late.
    """

    def __init__(
        self, run_dir: str | Path, step: int, steps: int, *, tensorboard: bool, wandb: bool
    ):
        """Lines after `step`, of updates that a resumed run makes again, are dropped."""
        self.steps, self.started, self.first = steps, time.perf_counter(), step
        self.history = [
            row for row in read_metrics(f"{run_dir}/metrics.jsonl") if row["step"] <= step
        ]
        self.listeners: list[Callable[[int, dict[str, float]], None]] = []
        self.closers: list[Callable[[], None]] = []
        self.bar = None
        if jax.process_index() == 0:
            self._open(Folder(run_dir), tensorboard=tensorboard, wandb=wandb)

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
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(path / "tensorboard"), purge_step=self.first + 1)

            def add_scalars(step: int, row: dict[str, float]) -> None:
                for name in row.keys() - {"step"}:
                    writer.add_scalar(name, row[name], step)

            self.listeners.append(add_scalars)
            self.closers.append(writer.close)
        if wandb:
            import wandb as wb  # not in the locks: an optional service

            name = folder.url.rstrip("/").rpartition("/")[2]
            run = wb.init(project="grug", name=name, dir=str(path), resume="allow")
            self.listeners.append(lambda n, row: run.log(row, step=n))
            self.closers.append(run.finish)
        # A bar redraws itself by escape codes, which NO_COLOR (no-color.org) asks to leave out.
        plain = os.environ.get("NO_COLOR") or not sys.stderr.isatty()
        self.bar = None if plain else self._make_bar()

    def _make_bar(self):
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[now]}"),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = bar.add_task("", total=self.steps, completed=self.first, now="compiling")
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
            now = f"loss {loss:.3f}  {speed:,.0f} tokens/s"
            self.bar.update(self.task, completed=step, now=now)
            if held_out:
                self.bar.console.print(f"step {step}{held_out}")
        elif held_out or step % max(1, self.steps // 20) == 0 or step == self.first + 1:
            elapsed = time.perf_counter() - self.started
            left = elapsed / (step - self.first) * (self.steps - step)
            print(
                f"step {step}/{self.steps}  loss {loss:.3f}  {speed:,.0f} tokens/s  "
                f"{left:.0f} s left{held_out}",
                flush=True,
            )

    def close(self) -> None:
        for close in reversed(self.closers):
            close()
