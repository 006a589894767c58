"""launch/ssh.sh of a real bundle on two hosts, each with an sshd."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.cluster import Worker, finish, free_port, kill, wait_for_step
from tests.slow.engines.bundles import (
    ENDLESS,
    PYTHON,
    RUN_S,
    SMALL,
    devices,
    ended,
    processes_of,
    start,
    steps,
)
from tests.slow.engines.hosts import Hosts, hosts

ONE, TWO = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def two(venvs: Path, settings: dict[str, str], tmp_path_factory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("ssh"), settings) as running:
        yield running


@pytest.fixture
def ssh(two: Hosts, bundle: Path, tmp_path: Path):
    """`ssh(*hosts, "--", *flags)`: ssh.sh at work, stopped with the test."""
    started: list[Worker] = []

    def run(*words: str) -> Worker:
        own = {"SSH": two.ssh, "PYTHON": PYTHON, "PORT": str(free_port())}
        script = ["bash", str(bundle / "launch/ssh.sh")]
        command = [*script, *words, "--run-dir", str(tmp_path / "run")]
        started.append(start(command, tmp_path / "log", {**os.environ, **own}))
        return started[-1]

    yield run
    kill(started)
    for process in processes_of(tmp_path / "run").values():
        process.kill()
    for home in two.homes.values():
        (home / "profile").unlink(missing_ok=True)


def test_two_hosts_train_together(ssh, two, tmp_path):
    worker = ssh(ONE, TWO, "--", *SMALL, "--steps", "4")
    assert finish([worker], within=RUN_S) == [0], worker.text()
    assert steps(tmp_path / "run") == [1, 2, 3, 4]
    assert devices(tmp_path / "run")["processes"] == 2
    for home in two.homes.values():
        (copy,) = (home / ".cache/grug/bundles").iterdir()
        assert (copy / "bundle.json").exists() and not [*copy.glob("*.pid")]
    assert "0: base tiny: 4 steps" in worker.text()
    assert "1: bundle: no --data" in worker.text()


def test_a_host_that_cannot_be_reached_is_named_and_nothing_runs(ssh, tmp_path):
    worker = ssh(ONE, "127.0.0.3", "--", *SMALL, *ENDLESS)
    assert finish([worker], within=60) == [1]
    assert "ssh.sh: the bundle could not be copied to 127.0.0.3" in worker.text()
    assert not processes_of(tmp_path / "run") and not (tmp_path / "run").exists()


def test_the_reason_of_a_process_that_fails_and_the_end_of_the_other(ssh, two, bundle, tmp_path):
    data = bundle / "sample"
    (two.homes[ONE] / "store").symlink_to(data)  # the second host has none
    worker = ssh(ONE, TWO, "--", *SMALL, *ENDLESS, "--data", "store")
    assert finish([worker], within=RUN_S) == [1], worker.text()
    assert "1: base: " in worker.text() and "store" in worker.text()
    assert "0: process 0 of 2 ends, since process 1 of 2 failed: exit code 1" in worker.text()
    assert f"ssh.sh: process 1 on {TWO} ended with 1" in worker.text()
    assert ended(tmp_path / "run", within=1)


def test_a_process_that_never_started_is_not_waited_for(ssh, two, tmp_path):
    """The other one would wait for it for five minutes."""
    (two.homes[TWO] / "profile").write_text("export GRUG_VENVS=/dev/null/none\n")
    began = time.monotonic()
    worker = ssh(ONE, TWO, "--", *SMALL, *ENDLESS)
    assert finish([worker], within=90) == [78], worker.text()
    assert "1: bundle: /dev/null/none" in worker.text()
    assert "GRUG_VENVS" in worker.text()
    assert ended(tmp_path / "run", within=1)
    print(f"{time.monotonic() - began:.1f} s")


def test_a_killed_process_is_an_exit_code_that_may_be_tried_again(ssh, tmp_path):
    worker = ssh(ONE, TWO, "--", *SMALL, *ENDLESS)
    wait_for_step([worker], tmp_path / "run", 2)
    processes_of(tmp_path / "run")["1"].kill()
    (code,) = finish([worker], within=60)
    assert 128 < code <= 255 and code != 143, worker.text()
    assert ended(tmp_path / "run", within=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_hosts_with_a_checkpoint(ssh, tmp_path, number):
    worker = ssh(ONE, TWO, "--", *SMALL, *ENDLESS)
    wait_for_step([worker], tmp_path / "run", 2)
    if number == signal.SIGINT:  # as a terminal's Ctrl-C: to all that runs in it
        os.killpg(worker.process.pid, number)
    else:
        worker.process.send_signal(number)
    assert finish([worker], within=60) == [143], worker.text()
    assert worker.text().count("preempted at step") == 2
    (saved,) = (tmp_path / "run/checkpoints").glob("step-*/COMMIT")
    assert int(saved.parent.name.removeprefix("step-")) == steps(tmp_path / "run")[-1]
    assert ended(tmp_path / "run", within=1)
