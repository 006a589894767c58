"""A run told to W&B's own package in its offline mode: one run, also when it was resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments.grug.base.launch
from tools.corpus.default import prepare_default

PEX = "tests/slow/wandb/wandb.pex"  # where Pants puts it
FLAGS = (
    "--model.vocab-size 320 --model.d-model 32 --model.n-layers 1 --model.n-heads 2 "
    "--model.n-kv-heads 1 --model.head-dim 16 --model.d-ff 64 --model.loss-chunk 32 "
    "--sequence-length 64 --batch-size 4 --eval-tokens 512 --steps 300 --seed 7 --wandb "
    "--no-tensorboard"
).split()
# Prints what W&B would upload, as JSON lines, from the files that it keeps: logs in LevelDB's
# format, blocks of 32 KiB whose parts have a header of checksum, length and type, after 7 bytes.
READER = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, FULL, LAST = 32768, 7, 1, 4

def parts(data):
    at = HEADER
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at:at + HEADER])
        if kind:
            yield kind, data[at + HEADER:at + HEADER + length]
        at += HEADER + length

def records(path):
    whole = b""
    for kind, part in parts(open(path, "rb").read()):
        whole += part
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""

for path in sys.argv[1:]:
    for record in records(path):
        if record.HasField("run"):
            run = record.run
            config = {u.key: json.loads(u.value_json) for u in run.config.update}
            print(json.dumps({"id": run.run_id, "group": run.run_group, "name": run.display_name,
                              "tags": list(run.tags), "project": run.project, "config": config}))
        elif record.HasField("history"):
            print(json.dumps({"step": record.history.step.num,
                              "keys": [i.key or "/".join(i.nested_key)
                                       for i in record.history.item]}))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> str:
    """The directory of W&B's package and those it needs."""
    root = tmp_path_factory.mktemp("pex_root")
    command = [sys.executable, PEX, "-c", "import wandb; print(wandb.__path__[0])"]
    found = subprocess.run(
        command, env={**os.environ, "PEX_ROOT": str(root)}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return str(Path(found.stdout.strip()).parent)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    cache = tmp_path_factory.mktemp("cache")
    return str(prepare_default(cache, max_documents=40, vocab_size=320, heldout_fraction=0.2))


def start(store: str, run_dir: Path, packages: str, *flags: str) -> subprocess.Popen:
    path = [*sys.path, packages]
    program = ("-m", experiments.grug.base.launch.__name__)
    return subprocess.Popen(
        [sys.executable, *program, *FLAGS, "--data", store, "--run-dir", str(run_dir), *flags],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "HOME": str(run_dir.parent),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_resumed_run_is_one_run_with_its_config(store, packages, tmp_path):
    run_dir = tmp_path / "base-1"
    first = start(store, run_dir, packages)
    deadline = time.monotonic() + 300
    while steps(run_dir) < 3 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143, first.communicate()
    kept = json.loads((run_dir / "run.json").read_text())["wandb_id"]
    second = start(store, run_dir, packages, "--resume")
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, out + err
    third = start(store, run_dir, packages, "--resume")  # a look at the finished run
    assert third.wait(300) == 0, third.communicate()

    logs = sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    assert [log.name for log in logs] == [f"run-{kept}.wandb"] * 2
    read = subprocess.run(
        [sys.executable, "-c", READER, *map(str, logs)],
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
    )
    assert read.returncode == 0, read.stderr
    records = [json.loads(line) for line in read.stdout.splitlines()]
    runs = [record for record in records if record.get("config")]
    assert {run["id"] for run in runs} == {kept}
    for run in runs:
        assert (run["project"], run["group"], run["name"]) == ("grug", "base", "base-1")
        assert run["tags"] == ["base", "seed 7"]
        assert run["config"]["model"]["d_model"] == 32 and run["config"]["seed"] == 7
    rows = [record for record in records if "step" in record]
    assert [row["step"] for row in rows] == [*range(1, 301)]
    assert {"train/loss", "eval/bpb"} <= set(rows[-1]["keys"])


def test_without_the_package_one_line_names_the_command_that_adds_it(store, tmp_path):
    process = start(store, tmp_path / "base-1", str(tmp_path))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("\n") == 1 and "--wandb: there is no package wandb: add it by ./pants" in err
    assert "run locks -- add wandb" in err
    assert not (tmp_path / "base-1").exists()  # nothing that a second start would stumble on
