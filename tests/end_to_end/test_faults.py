"""Faults of what hears of a run, met by real processes: how each ends, and what is left of it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.grug.base.launch
from tools.corpus.default import prepare_default

SMALL = (
    "--model.vocab-size 320 --model.d-model 32 --model.n-layers 1 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 16 --model.d-ff 64 --model.loss-chunk 32 "
    "--sequence-length 64 --batch-size 4 --eval-tokens 512 --warmup-steps 5"
).split()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """A slice of the default corpus: Python source of the locked wheels."""
    cache = tmp_path_factory.mktemp("cache")
    return str(prepare_default(cache, max_documents=60, vocab_size=320, heldout_fraction=0.1))


def start(store: str, run_dir: Path, *flags: str, **options) -> subprocess.Popen[str]:
    arguments = [*SMALL, "--data", store, "--run-dir", str(run_dir), *flags]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options.pop("env", {})}
    return subprocess.Popen(
        [
            *options.pop("within", []),
            sys.executable,
            "-m",
            experiments.grug.base.launch.__name__,
            *arguments,
        ],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env},
        **options,
    )


def own(err: str) -> list[str]:
    """Lines of stderr without those of JAX itself."""
    return [line for line in err.splitlines() if "preemption_notifier" not in line]


def steps(run_dir: Path) -> list[int]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def committed(run_dir: Path) -> list[int]:
    return sorted(int(p.parent.name[5:]) for p in run_dir.glob("checkpoints/*/COMMIT"))


def test_a_reader_that_leaves_after_two_lines(store, tmp_path):
    process = start(store, tmp_path / "run", "--steps", "40")
    assert process.stdout and process.stderr
    first, second = process.stdout.readline(), process.stdout.readline()
    assert first.startswith("base tiny: 40 steps") and " epochs, each of " in second
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=240) == 0, err
    assert own(err) == ["stdout: Broken pipe; nothing more is printed there"]
    assert steps(tmp_path / "run") == [*range(1, 41)] and committed(tmp_path / "run") == [40]


def test_nobody_listens_at_all(store, tmp_path):
    """As `2>&1 | head -1`, and as with both streams closed."""
    closed = f'exec {sys.executable} -m {experiments.grug.base.launch.__name__} "$@" >&- 2>&-'
    arguments = [*SMALL, "--data", store, "--run-dir", str(tmp_path / "run"), "--steps", "10"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", closed, "sh", *arguments], env=env, timeout=240, check=False)
    assert done.returncode == 0
    assert steps(tmp_path / "run") == [*range(1, 11)] and committed(tmp_path / "run") == [10]


def test_a_terminal_that_knows_ascii_only(store, tmp_path):
    process = start(
        store, tmp_path / "a\u00e9", "--steps", "10", env={"PYTHONIOENCODING": "ascii:strict"}
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and not own(err), err
    assert r"run in" in out and r"a\xe9" in out and "the model goes on" in out


LIMIT = 300_000  # bytes of a file: more than any of a checkpoint, as many as 900 rows of metrics


def test_metrics_that_cannot_be_written_stop_a_run_that_is_saved(store, tmp_path):
    """A file may grow no further: the same error, at the same place, as of a full disk."""
    run_dir = tmp_path / "run"
    often = ["--steps", "4000", "--checkpoint-every", "3000", "--eval-every", "0"]
    process = start(
        store,
        run_dir,
        *often,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
    )
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    told = own(err)
    stop, end = f"{run_dir}/metrics.jsonl cannot be written: File too large", "base: "
    assert f"{stop}: the run saves its state and stops" in told
    assert told[-1] == f"{end}{stop}; mend that, and go on with --resume"
    assert len(told) <= 3, told  # TensorBoard may have met the limit too
    (step,) = committed(run_dir)
    assert 500 < step < 3000
    process = start(store, run_dir, *often, "--resume")  # where the limit is gone
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0 and committed(run_dir)[-1] == 4000
    (told,) = own(err)
    lost = sorted({*range(1, 4001)} - {*steps(run_dir)})
    told_of = f"lacks {len(lost)} of the {step} steps before this start"
    assert f"{told_of} (of steps {lost[0]} to {step}): they are lost" in told
    assert lost[0] > 500  # what was written stays


@pytest.fixture
def small_disk(tmp_path) -> list[str]:
    """A command that runs another one where `tmp_path` is a file system of 600 kB of its own."""
    mount = 'mount -t tmpfs -o size=600k tmpfs "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path)]
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    return command


@pytest.mark.parametrize("flag", ["--tensorboard", "--no-tensorboard"])
def test_a_disk_that_fills_up(store, tmp_path, small_disk, flag):
    flags = ["--steps", "6000", "--checkpoint-every", "5000", "--eval-every", "0", flag]
    process = start(store, tmp_path / "run", *flags, within=small_disk)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    told = own(err)
    assert "Traceback" not in err and len(told) <= 5, told
    assert sum("metrics.jsonl cannot be written: No space left" in line for line in told) == 1
    assert sum("TensorBoard dropped" in line for line in told) <= (flag == "--tensorboard")
    assert told[-1].startswith("base: the last save failed: ")
    assert "No space left on device" in told[-1]
