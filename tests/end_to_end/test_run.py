"""The corpus tool and the template together, as processes: real text, real signals."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments.grug.base.launch
import tools.launch.main
import tools.runs.profile
from tests.tools.launch.terminal import on_a_terminal
from tools.corpus.default import prepare_default

MODEL = (
    "--model.vocab-size 512 --model.d-model 64 --model.n-layers 2 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 32 --model.d-ff 256 --sequence-length 128 "
    "--batch-size 8 --learning-rate 3e-3 --warmup-steps 5 --eval-tokens 4096 --no-tensorboard"
).split()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """A slice of the default corpus: Python source of the locked wheels."""
    cache = tmp_path_factory.mktemp("cache")
    return str(prepare_default(cache, max_documents=80, vocab_size=512, heldout_fraction=0.1))


def start(store: str, run_dir: Path, *flags: str, launcher: bool = False) -> subprocess.Popen:
    module = tools.launch.main if launcher else experiments.grug.base.launch
    arguments = [*MODEL, "--data", store, "--run-dir", str(run_dir), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", module.__name__, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "[Gloo]" not in out + err  # a process alone has no peers to find
    return out


def rows(run_dir: Path) -> list[dict]:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_step(process: subprocess.Popen, run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if len(rows(run_dir)) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate()}")


def checkpoint_bytes(run_dir: Path, step: int) -> dict[str, bytes]:
    root = run_dir / "checkpoints" / f"step-{step:08d}"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


STEPS = 60


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> tuple[Path, str]:
    """A run through the launcher that nothing interrupted, and what it printed."""
    run_dir = tmp_path_factory.mktemp("whole")
    flags = ["--steps", str(STEPS), "--checkpoint-every", "7", "--eval-every", "20"]
    return run_dir, finish(start(store, run_dir, *flags, launcher=True))


def test_loss_falls_on_real_text(whole):
    losses = [row["train/loss"] for row in rows(whole[0])]
    bits = [row["eval/bpb"] for row in rows(whole[0]) if "eval/bpb" in row]
    assert losses[0] == pytest.approx(math.log(512), rel=0.1)  # knows nothing yet
    assert sum(losses[-10:]) / 10 < losses[0] - 1.5
    assert len(bits) == 3 and bits[0] > bits[1] > bits[2]


def test_prints_what_a_person_wants_to_see(whole):
    run_dir, text = whole
    for part in ("step 60/60", "bits per byte", "training loss", "held-out prompt", str(run_dir)):
        assert part in text


def test_kill_at_any_moment_and_resume(store, whole, tmp_path):
    flags = ["--steps", str(STEPS), "--checkpoint-every", "7", "--eval-every", "20", "--resume"]
    draw, step = random.Random(0), 0
    for _ in range(3):
        process = start(store, tmp_path, *flags)
        step = len(rows(tmp_path)) // 7 * 7 + draw.randint(3, 15)
        wait_for_step(process, tmp_path, step)
        time.sleep(draw.random() / 10)
        process.kill()
        process.communicate()
    finish(start(store, tmp_path, *flags))
    assert checkpoint_bytes(tmp_path, STEPS) == checkpoint_bytes(whole[0], STEPS)
    for name in ("train/loss", "train/grad_norm"):
        assert [r[name] for r in rows(tmp_path)] == [r[name] for r in rows(whole[0])]


def test_sigterm_saves_and_exits_143(store, tmp_path):
    process = start(store, tmp_path, "--steps", "2000", "--checkpoint-every", "1000")
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    last = rows(tmp_path)[-1]["step"]
    assert f"preempted at step {last}" in err and "--resume goes on" in err
    assert (tmp_path / "checkpoints" / f"step-{last:08d}" / "COMMIT").exists()


def test_a_trace_tells_where_the_time_went(store, tmp_path):
    """Of a real run: the shares add up, and the parts of the model are in sight."""
    finish(start(store, tmp_path, "--steps", "6", "--profile", "3:2"))
    command = [sys.executable, "-m", tools.runs.profile.__name__, str(tmp_path), "--depth", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith(f"{tmp_path}: steps 3 to 4, ")
    _, devices, host = done.stdout.split("\n\n")
    for table in (devices, host):
        shares = dict(re.findall(r"^(\w+) .*?([\d.]+)%", table, re.MULTILINE))
        assert shares.pop("total") == "100.0"
        assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.05 * len(shares) + 0.2)
    parts = dict(re.findall(r"^(\w+) .*?([\d.]+)%", devices, re.MULTILINE))
    for part in ("attention", "mlp", "loss", "optimizer"):
        assert float(parts[part]) > 1, devices
    assert float(parts["other"]) < 20, devices


def test_steps_that_cannot_be_traced_are_refused_before_anything_starts(store, tmp_path):
    for text in ("5", "a:b", "0:3", "3:0", "5:9"):
        process = start(store, tmp_path / "run", "--steps", "6", "--profile", text)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 2 and out == ""
        assert err.startswith(f"base: profile={text}: ") and err.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_no_escape_codes_where_no_color_is_set(store, tmp_path):
    """On a terminal: a live bar, or plain lines."""
    run = (tools.launch.main.__name__, *MODEL, "--data", store, "--steps", "2")
    assert b"\x1b[" in on_a_terminal(*run, "--run-dir", str(tmp_path / "colour"))
    plain = on_a_terminal(*run, "--run-dir", str(tmp_path / "plain"), NO_COLOR="1")
    assert b"\x1b" not in plain and b"step 2/2  loss" in plain
