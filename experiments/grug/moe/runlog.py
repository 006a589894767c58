"""A run as it goes: its metrics, its progress, its signals. Plumbing: the same in every copy."""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.grug.moe.record import peak_flops, read_metrics


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


class StopSignal:
    """Notes SIGTERM and SIGINT while in use, so that the loop can save before it ends."""

    def __enter__(self) -> "StopSignal":
        self.received: int | None = None
        signals = (signal.SIGTERM, signal.SIGINT)
        self._old = {s: signal.signal(s, self._note) for s in signals}
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.received = number

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


class RunLog:
    """metrics.jsonl, one line a step, and whoever else listens: a terminal, TensorBoard, W&B."""

    def __init__(self, run_dir: Path, step: int, steps: int, *, tensorboard: bool, wandb: bool):
        """Lines after `step`, of updates that a resumed run makes again, are dropped."""
        self.path, self.steps, self.started = run_dir / "metrics.jsonl", steps, time.perf_counter()
        self.first = step
        self.history = [row for row in read_metrics(self.path) if row["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in self.history))
        os.replace(temporary, self.path)
        self.file = open(self.path, "a", buffering=1)
        self.listeners: list[Callable[[int, dict[str, float]], None]] = [self._show]
        self.closers: list[Callable[[], None]] = [self.file.close]
        if tensorboard:
            from tensorboardX import SummaryWriter

            writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

            def add_scalars(step: int, row: dict[str, float]) -> None:
                for name in row.keys() - {"step"}:
                    writer.add_scalar(name, row[name], step)

            self.listeners.append(add_scalars)
            self.closers.append(writer.close)
        if wandb:
            import wandb as wb  # not in the locks: an optional service

            run = wb.init(project="grug", name=run_dir.name, dir=str(run_dir), resume="allow")
            self.listeners.append(lambda n, row: run.log(row, step=n))
            self.closers.append(run.finish)
        self.bar = self._make_bar() if sys.stderr.isatty() else None

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
        self.file.write(json.dumps(row) + "\n")
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
