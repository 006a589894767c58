"""A store that fails in the middle of a save: no checkpoint that loads wrongly; the run goes on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from urllib.parse import unquote

import jax
import pytest
import tensorstore as ts

from experiments.grug.base.model import ModelConfig
from experiments.grug.base.plumbing import storage
from experiments.grug.base.plumbing.checkpoint import CheckpointError, Checkpoints
from experiments.grug.base.plumbing.record import read_metrics
from experiments.grug.base.plumbing.runlog import RunLog
from experiments.grug.base.plumbing.storage import Outage
from experiments.grug.base.train import TrainConfig, train
from tests.stores.faults import Fault, Proxy
from tests.stores.tree import CONFIG, assert_holds, like, make_mesh, make_state
from tools.corpus.default import prepare_default

META = {"config": CONFIG}


@pytest.fixture(autouse=True)
def four_devices():
    with jax.set_mesh(make_mesh(1, 2, 2)):
        yield


@pytest.fixture
def kind_of_store(request) -> str:
    return getattr(request, "param", "s3")


both_stores = pytest.mark.parametrize("kind_of_store", ["s3", "gs"], indirect=True)


@pytest.fixture
def proxy(kind_of_store, request) -> Iterator[Proxy]:
    """In front of the store, without a fault so far."""
    result = request.getfixturevalue({"s3": "s3_proxy", "gs": "gcs_proxy"}[kind_of_store])
    yield result
    result.fault = None


@pytest.fixture
def checkpoints(kind_of_store, proxy, root, monkeypatch) -> Checkpoints:
    """Of a run behind the proxy that has saved step 1; a request is tried three times."""
    retries = {"max_retries": 2, "initial_delay": "50ms", "max_delay": "100ms"}
    context = {"s3_request_retries": retries, "gcs_request_retries": retries}
    monkeypatch.setattr(storage, "CONTEXT", ts.Context(context))
    monkeypatch.setattr(storage.Retry, "limit", 0.0)  # test_outage.py is about waiting
    opened = Checkpoints(root(kind_of_store), keep=2)
    opened.save(1, make_state(1), META)
    opened.wait()
    return opened


def part(name: str, methods: tuple[str, ...] = ("PUT", "POST")):
    """Matches what is written of a part of a save of step 2: S3 puts, GCS posts."""
    return lambda method, path: method in methods and f"step-00000002/{name}" in unquote(path)


def assert_goes_on(checkpoints: Checkpoints, steps: list[int]) -> None:
    """What is there loads right, and the next save succeeds."""
    assert checkpoints.steps() == steps
    for step in steps:
        assert_holds(checkpoints.restore(step, like(), CONFIG)[0], step)
    checkpoints.save(3, make_state(3), META)
    checkpoints.wait()
    assert checkpoints.steps() == [*steps, 3][-2:]
    assert_holds(checkpoints.restore(3, like(), CONFIG)[0], 3)


SAID = {
    "cut": "does not answer",
    "500": "does not answer",
    "stall": "does not answer .*too slow",
    "403": "access refused .*: set (AWS_ACCESS_KEY_ID|GOOGLE_APPLICATION_CREDENTIALS)",
}
CASES = [(kind, name) for kind in ("cut", "500", "403") for name in ("split/c", "COMMIT")]
CASES += [("500", "zeros/zarr.json"), ("403", "step/"), ("stall", "rows/c/1")]


@both_stores
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_save_that_fails_is_reported_and_the_next_one_succeeds(
    checkpoints, proxy, kind_of_store, capsys, kind, name
):
    proxy.fault = Fault(kind, part(name))
    checkpoints.save(2, make_state(2), META)
    outage = kind != "403"
    with pytest.raises(Outage if outage else CheckpointError, match=SAID[kind]) as raised:
        checkpoints.wait()
    message = [str(raised.value)] if outage else capsys.readouterr().err.splitlines()
    start = "" if outage else "checkpoint of step 2 not saved: "
    assert len(message) == 1 and message[0].startswith(f"{start}{kind_of_store}://")
    assert proxy.fault.met >= (1 if kind == "403" else 3)
    proxy.fault = None
    assert_goes_on(checkpoints, [1])
    assert not [n for n in checkpoints.folder.names() if n.startswith("step-00000002")]


@both_stores
@pytest.mark.parametrize("kind", ["cut", "lost", "500", "slow"])
@pytest.mark.parametrize("name", ["split/c", "COMMIT", ""])
def test_a_fault_that_passes_costs_nothing(checkpoints, proxy, kind, name):
    proxy.fault = Fault(kind, part(name), times=2)
    checkpoints.save(2, make_state(2), META)
    checkpoints.wait()
    assert proxy.fault.met == 2 or (kind, name) == ("slow", "COMMIT")
    assert_goes_on(checkpoints, [1, 2])


@both_stores
def test_a_commit_whose_answer_is_lost_is_a_checkpoint(checkpoints, proxy):
    proxy.fault = Fault("lost", part("COMMIT"))
    checkpoints.save(2, make_state(2), META)
    with pytest.raises(Outage, match="does not answer"):
        checkpoints.wait()
    proxy.fault = None
    assert_goes_on(checkpoints, [1, 2])


@both_stores
def test_training_goes_on_while_a_store_is_slow(checkpoints, proxy):
    proxy.fault = Fault("slow", part(""))
    began = time.perf_counter()
    checkpoints.save(2, make_state(2), META)
    checkpoints.poll()
    assert time.perf_counter() - began < 0.5
    assert checkpoints.steps() == [1]
    checkpoints.wait()
    assert time.perf_counter() - began > 2
    assert_goes_on(checkpoints, [1, 2])


def test_without_its_metrics_a_checkpoint_is_not_committed(checkpoints, proxy, capsys):
    url = checkpoints.folder.url.replace("checkpoints/", "")
    log = RunLog(url, {"seed": 0}, 0, 9, tensorboard=False, wandb=False)
    log.write({"step": 1, "train/loss": 3.0, "throughput/tokens_per_second": 1.0})
    proxy.fault = Fault("403", lambda method, path: method == "PUT" and "metrics" in path)
    checkpoints.save(2, make_state(2), META, before_commit=log.flush)
    with pytest.raises(CheckpointError, match="the last save failed: .*access refused"):
        checkpoints.wait()
    assert "checkpoint of step 2 not saved" in capsys.readouterr().err
    proxy.fault = None
    assert_goes_on(checkpoints, [1])
    log.close()
    assert [row["step"] for row in read_metrics(f"{url}metrics.jsonl")] == [1]


def test_the_third_failure_in_a_row_stops_the_run(checkpoints, proxy):
    proxy.fault = Fault("403", lambda method, path: method == "PUT")
    for step in (2, 3, 4):
        checkpoints.save(step, make_state(step), META)
    with pytest.raises(CheckpointError, match="3 saves in a row failed: .*access refused"):
        checkpoints.wait()
    proxy.fault = None
    assert checkpoints.steps() == [1]


def test_a_store_that_is_away_from_the_start(checkpoints, proxy):
    resumed = Checkpoints(checkpoints.folder.url.replace("checkpoints/", ""), keep=2)
    proxy.fault = Fault("500", lambda method, path: True)
    resumed.save(2, make_state(2), META)
    with pytest.raises(Outage, match="does not answer"):
        resumed.wait()
    with pytest.raises(storage.StorageError, match="does not answer"):
        resumed.steps()
    with pytest.raises(storage.StorageError, match="does not answer"):
        resumed.restore(1, like(), CONFIG)
    proxy.fault = None
    assert_goes_on(resumed, [1])


def test_a_whole_run_in_a_bucket(root, proxy, tmp_path, capsys):
    """Its second checkpoint fails; it goes on, ends, and is resumed from the last one."""
    data = root("s3") + "/corpus"
    corpus = prepare_default(tmp_path, max_documents=60, vocab_size=512, heldout_fraction=0.2)
    for path in (p for p in corpus.rglob("*") if p.is_file()):
        storage.Folder(data).write(path.relative_to(corpus).as_posix(), path.read_bytes())
    model = ModelConfig(
        vocab_size=512, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64
    )
    cfg = TrainConfig(
        model=dataclasses.replace(model, compute_dtype="float32"),
        data=data,
        run_dir=root("s3"),
        steps=12,
        batch_size=4,
        sequence_length=64,
        eval_tokens=1024,
        eval_every=0,
        checkpoint_every=4,
        resume=True,
    )
    run_dir = cfg.run_dir
    proxy.fault = Fault("403", lambda m, path: m == "PUT" and "step-00000008/model" in path)
    with jax.set_mesh(make_mesh(1, 1, 1)):
        train(cfg)
        assert "checkpoint of step 8 not saved: s3://" in capsys.readouterr().err
        proxy.fault = None
        train(cfg)  # nothing is left to do, so it adds no attempt
    folder = storage.Folder(run_dir)
    rows = read_metrics(f"{run_dir}/metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(1, 13)]
    attempts = json.loads(folder.read("run.json") or b"")["attempts"]
    assert [attempt["from_step"] for attempt in attempts] == [0]
    assert Checkpoints(run_dir, keep=2).steps() == [4, 12]


def test_a_chunk_that_cannot_be_had_is_not_called_damaged(checkpoints, proxy):
    proxy.fault = Fault("403", lambda method, path: "split/c" in path)
    with pytest.raises(CheckpointError, match="checkpoint of step 1 .*access refused"):
        checkpoints.restore(1, like(), CONFIG)


def test_an_old_checkpoint_that_cannot_be_removed_is_tried_again(checkpoints, proxy, capsys):
    proxy.fault = Fault("403", lambda method, path: method == "DELETE" and "COMMIT" not in path)
    for step in (2, 3):
        checkpoints.save(step, make_state(step), META)
    checkpoints.wait()
    assert "old checkpoints not removed" in capsys.readouterr().err
    names = [n for n in checkpoints.folder.names() if n.startswith("step-00000001")]
    assert names and checkpoints.steps() == [2, 3]  # its marker went first
    proxy.fault = None
    checkpoints.save(4, make_state(4), META)
    checkpoints.wait()
    assert not [n for n in checkpoints.folder.names() if n.startswith("step-00000001")]
    assert checkpoints.steps() == [3, 4]
