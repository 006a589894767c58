"""Checkpoints, token stores and run directories in directories and buckets alike."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.grug.base.plumbing.branch import BranchError, open_branch
from experiments.grug.base.plumbing.checkpoint import CheckpointError, Checkpoints
from experiments.grug.base.plumbing.data import DataError, TokenStore
from experiments.grug.base.plumbing.packing import PackedRows, loader
from experiments.grug.base.plumbing.record import (
    RUN_SCHEMA,
    VARIANT,
    read_metrics,
    wandb_id,
    write_record,
)
from experiments.grug.base.plumbing.runlog import Mirror, RunLog
from experiments.grug.base.plumbing.storage import Folder, StorageError
from tests.stores.tree import CONFIG, assert_holds, like, make_mesh, make_state
from tools.corpus.default import prepare_default
from tools.runs.kept_sources import sha256

KINDS = ["file", "s3", "gs"]


@pytest.fixture(autouse=True)
def four_devices():
    with jax.set_mesh(make_mesh(1, 2, 2)):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_round_trip_and_the_old_ones_go(root, kind):
    url = root(kind)
    checkpoints = Checkpoints(url, keep=2)
    assert checkpoints.steps() == [] and checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {"config": CONFIG, "data_position": {"at": step}})
        checkpoints.poll()
    checkpoints.wait()
    again = Checkpoints(url, keep=2)
    assert again.steps() == [2, 3] and again.latest() == 3
    names = Folder(url).names()
    assert {name.split("/")[1] for name in names} == {"step-00000002", "step-00000003"}
    for mesh in (make_mesh(1, 2, 2), make_mesh(2, 4, 1), make_mesh(1, 1, 1)):
        with jax.set_mesh(mesh):
            state, meta = again.restore(3, like(), CONFIG)
            assert_holds(state, 3)
    assert meta["data_position"] == {"at": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_or_missing_chunk_stops_the_run(root, kind):
    url = root(kind)
    checkpoints = Checkpoints(url, keep=2)
    checkpoints.save(1, make_state(1), {"config": CONFIG})
    checkpoints.wait()
    folder, chunk = checkpoints.folder, "step-00000001/zeros/c/0/1"
    content = folder.read(chunk)
    assert content
    folder.write(chunk, b"\1" + content[1:])
    with pytest.raises(CheckpointError, match="damaged.*Delete its folder"):
        checkpoints.restore(1, like(), CONFIG)
    folder.remove(chunk)
    with pytest.raises(CheckpointError, match="damaged.*Delete its folder"):
        checkpoints.restore(1, like(), CONFIG)


@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_begins_with_a_checkpoint_anywhere(root, kind):
    url = f"{root(kind)}/trunk"
    checkpoints = Checkpoints(url, keep=2)
    for step in (1, 3):
        checkpoints.save(step, make_state(step), {"config": CONFIG})
        checkpoints.wait()
    attempts = [{"from_step": 0}]
    record = {"variant": VARIANT, "schema_version": RUN_SCHEMA, "attempts": attempts}
    Folder(url).write("run.json", json.dumps(record).encode())
    branch = open_branch("", f"{url}@1", resuming=False)
    state, _ = branch.begin(like(), CONFIG | {"steps": 2}, ["steps"])
    assert_holds(state, 1)
    (parent,) = branch.ancestors
    names = checkpoints.folder.names("step-00000001/")
    listed = [
        f"{sha256(checkpoints.folder.read(n) or b'')}  {n.partition('/')[2]}\n" for n in names
    ]
    assert (parent["run"], parent["step"]) == ("trunk", 1)
    assert parent["digest"] == sha256("".join(listed).encode())
    with pytest.raises(BranchError, match="trunk has no checkpoint of step 2, only of 1, 3: "):
        open_branch("", f"{url}@2", resuming=False).begin(like(), CONFIG | {"steps": 9}, ["steps"])
    with pytest.raises(BranchError, match="elsewhere holds no run: give --branch-from"):
        open_branch("", f"{root(kind)}/elsewhere", resuming=False).begin(like(), CONFIG, [])


@pytest.mark.parametrize("kind", KINDS)
def test_leftovers_of_a_killed_run_go(root, kind):
    url = root(kind)
    folder = Folder(url)
    folder.write("checkpoints/step-00000007/split/c/0/0", b"half")
    checkpoints = Checkpoints(url, keep=2)
    assert checkpoints.steps() == []
    checkpoints.save(5, make_state(5), {"config": CONFIG})
    checkpoints.wait()
    assert not [name for name in folder.names() if "step-00000007" in name]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A token store by the tool that makes them."""
    cache = tmp_path_factory.mktemp("corpus")
    return Path(prepare_default(cache, max_documents=60, vocab_size=320, heldout_fraction=0.2))


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_token_store_in_a_bucket_reads_like_a_local_one(root, kind, store):
    url = root(kind)
    folder = Folder(url)
    for path in (p for p in store.rglob("*") if p.is_file()):
        folder.write(path.relative_to(store).as_posix(), path.read_bytes())
    ours, theirs = TokenStore.open(url), TokenStore.open(str(store))
    assert ours.manifest == theirs.manifest
    assert ours.tokenizer().to_str() == theirs.tokenizer().to_str()
    rows = PackedRows(ours, "train", 32)
    assert len(rows) == len(PackedRows(theirs, "train", 32)) > 8
    sizes = {"batch_size": 4, "sequence_length": 32, "axes": (), "seed": 0}
    batches = zip(loader(ours, "train", **sizes), loader(theirs, "train", **sizes), strict=False)
    for _, (a, b) in zip(range(5), batches, strict=False):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def run_log(url: str, step: int, *, tensorboard: bool = False) -> RunLog:
    return RunLog(url, {"seed": 0}, step, 9, tensorboard=tensorboard, wandb=False)


def row(step: int) -> dict[str, float]:
    return {"step": step, "train/loss": 3.0, "throughput/tokens_per_second": 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_directory(root, kind):
    url = root(kind)
    assert Folder(url).empty()
    write_record(url, {"a": 1}, {}, {"b": 2}, 0)
    write_record(url, {"a": 1}, {}, {"b": 2}, 4)
    record = json.loads(Folder(url).read("run.json") or b"")
    assert [a["from_step"] for a in record["attempts"]] == [0, 4]
    ((digest, listed),) = record["sources"].items()
    sources = f"sources/{digest[:16]}/"
    assert set(Folder(url).names(sources)) == {sources + name for name in listed}
    assert wandb_id(Folder(url)) == wandb_id(Folder(url))
    log = run_log(url, 0, tensorboard=True)
    for step in (1, 2, 3):
        log.write(row(step))
    log.close()
    assert read_metrics(f"{url}/metrics.jsonl") == [row(1), row(2), row(3)]
    assert any("tfevents" in name for name in Folder(url).names("tensorboard/"))
    log = run_log(url, 2)  # resumed: what comes after step 2 is made again
    log.write(row(3) | {"again": 1.0})
    log.close()
    assert [len(r) for r in read_metrics(f"{url}/metrics.jsonl")] == [3, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_lie_behind_every_commit(root, kind):
    """By itself the log sends after half a minute; a process killed before that loses nothing."""
    url = root(kind)
    log, checkpoints = run_log(url, 0), Checkpoints(url, keep=2)
    for step in (1, 2, 3, 4):
        log.write(row(step))
        if step % 2 == 0:
            meta = {"config": CONFIG}
            checkpoints.save(step, make_state(step), meta, before_commit=log.flush)
            checkpoints.wait()
            metrics = read_metrics(f"{url}/metrics.jsonl")
            assert [r["step"] for r in metrics] == [*range(1, step + 1)]
    log.close()


def test_metrics_reach_a_bucket_while_the_run_goes_on(root):
    url = root("s3")
    mirror = Mirror(Folder(url), every=0.2)
    (mirror.path / "metrics.jsonl").write_text("1\n")
    observed = []
    for _ in range(100):
        observed.append(Folder(url).read("metrics.jsonl"))
        if observed[-1]:
            break
        mirror._stop.wait(0.05)
    assert observed[-1] == b"1\n"
    (mirror.path / "metrics.jsonl").write_text("1\n2\n")
    mirror.close()
    assert Folder(url).read("metrics.jsonl") == b"1\n2\n" and not mirror.path.exists()


def test_a_bucket_that_is_not_there(root, s3, gcs):
    for url in ("s3://grug-none/run", "gs://grug-none/run"):
        with pytest.raises(StorageError, match=f"^{url}/: no such bucket .*: make it"):
            write_record(url, {}, {}, {}, 0)
        checkpoints = Checkpoints(url, keep=1)
        checkpoints.save(1, make_state(1), {"config": CONFIG})
        with pytest.raises(CheckpointError, match="no such bucket"):
            checkpoints.wait()
    with pytest.raises(DataError, match="^token store s3://grug-none/: no such bucket"):
        TokenStore.open("s3://grug-none")
    assert "\n" not in str(pytest.raises(DataError, TokenStore.open, "s3://grug-none").value)
    with pytest.raises(DataError, match="no token store here"):
        TokenStore.open(root("s3"))


def test_credentials_that_are_wrong_or_absent(root, s3, monkeypatch):
    url = root("s3")
    remedy = "access refused .*: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

    def authenticate(after: str) -> None:
        url, plain = f"{s3}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, after.encode(), plain)).close()

    authenticate("0")  # from now on moto checks who asks
    try:
        with pytest.raises(StorageError, match=remedy):
            Folder(url).write("a", b"")
        with pytest.raises(DataError, match=f"token store {url}/: {remedy}"):
            TokenStore.open(url)
    finally:
        authenticate("inf")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=remedy):
        Folder(url).write("a", b"")


@pytest.mark.parametrize("url", ["s3://", "s3:/bucket/run", "ftp://host/run"])
def test_what_is_no_place(url):
    with pytest.raises(StorageError, match="give a local path, s3://bucket/path or gs://"):
        Folder(url)
