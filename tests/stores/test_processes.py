"""Two processes of two devices: one checkpoint, whichever of them meets a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import tests.stores.worker
from experiments.grug.base.plumbing.checkpoint import Checkpoints
from experiments.grug.base.plumbing.storage import Folder
from tests.stores.conftest import free_port
from tests.stores.faults import Fault
from tests.stores.tree import CONFIG, assert_holds, like, make_mesh, make_state
from tools.corpus.default import prepare_default


def start(
    action: str, urls: list[str], *arguments: str, second: dict[str, str]
) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, outputs and errors of both processes; `second` is the second's environment."""
    coordinator = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", tests.stores.worker.__name__, action, coordinator]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [*command, str(i), urls[i], *arguments],
            env={**env, **second} if i else env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    return codes, [out for out, _ in outputs], [err for _, err in outputs]


def run(action: str, urls: list[str], *arguments: str, **second: str) -> list[list[str]]:
    """The output lines of both processes, which must succeed, less those of JAX's own library.

    Its threads may write two texts and then two ends of lines.
    """
    codes, outputs, errors = start(action, urls, *arguments, second=second)
    assert codes == [0, 0], "\n".join(error[-3000:] for error in errors)
    return [[x for x in out.splitlines() if x and "peer ranks" not in x] for out in outputs]


@pytest.mark.parametrize("kind", ["file", "s3", "gs"])
def test_two_processes_save_and_any_number_restores(root, kind):
    url = root(kind)
    # What a killed start of this run has left: it must neither count nor stay.
    for name in ("step-00000001/NOTE-5-1", "step-00000001/split/c/9/9", "step-00000009/x"):
        Folder(url).write(f"checkpoints/{name}", b"")
    saved = [*(f"saved {step}" for step in (1, 2, 3)), "restored 3"]
    assert run("save", [url, url]) == [saved, saved]
    names = Folder(f"{url}/checkpoints").names()
    assert {name.partition("/")[0] for name in names} == {"step-00000002", "step-00000003"}
    assert not [name for name in names if "NOTE" in name]
    with jax.set_mesh(make_mesh(1, 1, 1)):
        assert_holds(Checkpoints(url, keep=2).restore(3, like(), CONFIG)[0], 3)
    with jax.set_mesh(make_mesh(2, 2, 2)):
        one = Checkpoints(url, keep=2)
        one.save(4, make_state(4), {"config": CONFIG})
        one.wait()
    if kind == "file":
        assert run("restore", [url, url]) == [["restored 4"], ["restored 4"]]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_fault_of_either_process_fails_the_save_in_both(root, s3_proxy, s3, monkeypatch, failing):
    url = root("s3")
    s3_proxy.fault = Fault("403", lambda m, path: m == "PUT" and "02/split/c" in path)
    first, second = (s3_proxy.url, s3) if failing == 0 else (s3, s3_proxy.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", first)
    outputs = run("save", [url, url], AWS_ENDPOINT_URL=second)
    for output in outputs:
        assert [line.split(":")[0] for line in output] == [
            *("saved 1", "failed 2", "saved 3"),
            "restored 3",
        ]
        assert "access refused" in output[1]
    assert f"process {failing}: " in outputs[1 - failing][1]
    assert Checkpoints(url, keep=2).steps() == [1, 3]


def test_directories_that_are_not_shared(tmp_path: Path):
    urls = [str(tmp_path / "a"), str(tmp_path / "b")]
    codes, outputs, errors = start("apart", urls, second={})
    assert codes == [1, 1]
    assert all("parts have not come in 1 s" in error for error in errors)
    assert not any("saved" in output for output in outputs)
    assert not list(tmp_path.rglob("COMMIT"))


def test_two_processes_hold_the_batch_of_one(tmp_path: Path):
    store = prepare_default(tmp_path, max_documents=60, vocab_size=320, heldout_fraction=0.2)
    assert run("read", [str(store)] * 2, str(store)) == [["read"], ["read"]]
