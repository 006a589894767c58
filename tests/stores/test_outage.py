"""A store that does not answer for a while: the run goes on, and ends in order if it takes long."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import tensorstore as ts

from experiments.grug.base import launch
from experiments.grug.base.plumbing import storage
from experiments.grug.base.plumbing.checkpoint import Checkpoints
from experiments.grug.base.plumbing.data import DataError, TokenStore
from experiments.grug.base.plumbing.packing import loader
from experiments.grug.base.plumbing.record import read_metrics
from experiments.grug.base.plumbing.rundir import Claim
from experiments.grug.base.plumbing.storage import Folder, Outage, Retry
from tests.engines.cluster import MODEL
from tests.stores.faults import Fault, Proxy
from tests.stores.tree import CONFIG, assert_holds, like, make_mesh, make_state
from tools.corpus.default import prepare_default

META = {"config": CONFIG}
AWAY = Fault("500", lambda method, path: True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is tried twice; what waits for an outage to end looks every 0.2 s, for 30 s."""
    retries = {"max_retries": 1, "initial_delay": "50ms", "max_delay": "50ms"}
    context = {"s3_request_retries": retries, "gcs_request_retries": retries}
    monkeypatch.setattr(storage, "CONTEXT", ts.Context(context))
    monkeypatch.setattr(Retry, "limit", 30.0)
    monkeypatch.setattr(Retry, "longest_pause", 0.2)


@pytest.fixture(params=["s3", "gs"])
def proxy(request) -> Iterator[Proxy]:
    result = request.getfixturevalue({"s3": "s3_proxy", "gs": "gcs_proxy"}[request.param])
    result.kind = request.param
    yield result
    result.fault = None


@pytest.fixture
def checkpoints(proxy, root) -> Iterator[Checkpoints]:
    """Of a run behind the proxy that has saved step 1."""
    with jax.set_mesh(make_mesh(1, 2, 2)):
        opened = Checkpoints(root(proxy.kind), keep=2)
        opened.save(1, make_state(1), META)
        opened.wait()
        yield opened


def goes(proxy: Proxy, seconds: float) -> None:
    """The store is away for that long from now on."""
    proxy.fault = AWAY

    def back() -> None:
        proxy.fault = None

    threading.Timer(seconds, back).start()


def test_a_save_waits_out_an_outage_and_training_goes_on(checkpoints, proxy, capsys):
    goes(proxy, 3)
    began = time.monotonic()
    checkpoints.save(2, make_state(2), META)
    checkpoints.poll()
    assert time.monotonic() - began < 1
    checkpoints.wait()
    assert time.monotonic() - began > 3
    assert_holds(checkpoints.restore(2, like(), CONFIG)[0], 2)
    (message,) = capsys.readouterr().err.splitlines()
    assert (
        message.startswith("checkpoint of step 2 waits: ") and "trying again for 1 min" in message
    )


def test_what_waits_gives_way_to_a_newer_state(checkpoints, proxy, capsys):
    proxy.fault = AWAY
    for step in (2, 3, 4, 5):  # more than the failures that end a run
        began = time.monotonic()
        checkpoints.save(step, make_state(step), META)
        assert time.monotonic() - began < 5
    proxy.fault = None
    checkpoints.wait()
    assert checkpoints.steps() == [1, 5]
    said = capsys.readouterr().err
    assert all(f"checkpoint of step {step} not saved" in said for step in (2, 3, 4))


def test_the_first_save_of_a_start_waits_too(checkpoints, proxy):
    resumed = Checkpoints(checkpoints.folder.url.replace("checkpoints/", ""), keep=2)
    goes(proxy, 2)
    resumed.save(2, make_state(2), META)
    resumed.wait()
    assert resumed.steps() == [1, 2]


def test_an_outage_has_a_limit_whatever_the_number_of_saves(checkpoints, proxy, monkeypatch):
    monkeypatch.setattr(Retry, "limit", 3.0)
    proxy.fault = AWAY
    began = time.monotonic()

    def save_often() -> None:
        for step in range(2, 1000):
            checkpoints.save(step, make_state(step), META)
            time.sleep(0.3)

    with pytest.raises(Outage, match="the store does not answer"):
        save_often()
    assert 3 <= time.monotonic() - began < 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    cache = tmp_path_factory.mktemp("corpus")
    return Path(prepare_default(cache, max_documents=60, vocab_size=320, heldout_fraction=0.2))


def test_reading_tokens_waits_out_an_outage(proxy, root, corpus, monkeypatch):
    url = root(proxy.kind)
    for path in (p for p in corpus.rglob("*") if p.is_file()):
        Folder(url).write(path.relative_to(corpus).as_posix(), path.read_bytes())
    sizes: dict[str, Any] = {"batch_size": 4, "sequence_length": 32, "axes": (), "seed": 0}
    cache = ts.Context({"cache_pool": {"total_bytes_limit": 0}})  # every read is a request
    monkeypatch.setattr(storage, "CONTEXT", cache)
    batches, expected = (
        loader(TokenStore.open(place), "train", **sizes) for place in (url, str(corpus))
    )
    goes(proxy, 2)
    for _, batch, wanted in zip(range(20), batches, expected, strict=False):
        assert all((ours == theirs).all() for ours, theirs in zip(batch, wanted, strict=True))
    proxy.fault = Fault("403", lambda method, path: True)
    with pytest.raises(DataError, match="access refused"):
        list(itertools.islice(batches, 100))


def flags(corpus: Path, run_dir: str, steps: int) -> list[str]:
    sizes = ["--steps", str(steps), "--checkpoint-every", "4", "--resume"]
    return [*MODEL, *sizes, "--data", str(corpus), "--run-dir", run_dir]


def test_a_run_lives_through_an_outage_and_ends_for_another_start_after_a_long_one(
    s3_proxy, root, corpus, monkeypatch, capsys
):
    run_dir = root("s3")
    s3_proxy.fault = Fault("500", lambda method, path: "step-00000008" in path)
    monkeypatch.setattr(Retry, "limit", 4.0)
    with jax.numpy_dtype_promotion("standard"):
        assert launch.main(flags(corpus, run_dir, 16)) == 0  # step 12's state was newer
        said = capsys.readouterr().err
        assert "checkpoint of step 8 not saved" in said
        assert Checkpoints(run_dir, keep=2).steps() == [12, 16]

        run_dir = root("s3")
        s3_proxy.fault = Fault("500", lambda method, path: "step-00000008" in path)
        assert launch.main(flags(corpus, run_dir, 8)) == Outage.EXIT_CODE == 175
        assert "--resume goes on after that" in capsys.readouterr().err
        s3_proxy.fault = None
        assert launch.main(flags(corpus, run_dir, 8)) == 0
    assert [row["step"] for row in read_metrics(f"{run_dir}/metrics.jsonl")] == [*range(1, 9)]
    assert "CLAIM" not in Folder(run_dir).names()


def test_a_start_during_an_outage_waits_where_it_resumes(s3_proxy, root, corpus, capsys):
    run_dir = root("s3")
    goes(s3_proxy, 2)
    with jax.numpy_dtype_promotion("standard"):
        assert launch.main(flags(corpus, run_dir, 4)) == 0
    assert "opening the run directory: s3://" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_a_save_that_takes_long(s3_proxy, root, corpus, tmp_path):
    run_dir = root("s3")
    s3_proxy.fault = Fault("stall", lambda method, path: method == "PUT" and "/step-" in path)
    endless = [*flags(corpus, run_dir, 100_000), "--checkpoint-every", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", launch.__name__, *endless],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    while "loss" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # of the same keystroke
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(4)
    process.send_signal(signal.SIGINT)
    assert process.wait(8) == 130
    assert "interrupted twice" in process.stdout.read()
    s3_proxy.fault = None
    assert Checkpoints(run_dir, keep=2).steps() == []
    Claim(Folder(run_dir)).drop()  # it is free at once
