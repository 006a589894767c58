"""launch/ray_driver.py of a real bundle as a job of a Ray cluster with two nodes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.cluster import Worker, finish, kill, wait_for_step
from tests.slow.engines.bundles import (
    ENDLESS,
    RUN_S,
    SMALL,
    devices,
    ended,
    processes_of,
    program,
    start,
    steps,
)
from tests.slow.engines.ray_cluster import RayCluster, ray_cluster
from tools.bundle.settings import Settings
from tools.bundle.topology import Topology
from tools.launch import engines
from tools.launch.engines import Job


@pytest.fixture(scope="module")
def cluster(venvs: Path, settings: dict[str, str], tmp_path_factory) -> Iterator[RayCluster]:
    python = program("engines.pex", "GRUG_ENGINES_PYTHON")
    with ray_cluster(python, tmp_path_factory.mktemp("ray"), settings) as running:
        yield running


@pytest.fixture
def submit(cluster: RayCluster, bundle: Path, tmp_path: Path):
    """`submit(name, *flags)`: `ray job submit`, which follows the job and ends with its state."""
    started: list[Worker] = []

    def run(name: str, *flags: str, fed: str = "{}") -> Worker:
        job = ["job", "submit", "--submission-id", name, "--working-dir", str(bundle)]
        job += ["--runtime-env=/dev/stdin", "--"]
        driver = ["python", "launch/ray_driver.py", "--nodes", "2", "--", *flags]
        command = [*cluster.cli, *job, *driver, "--run-dir", str(tmp_path / "run")]
        # As the launcher gives it the secrets: by its input, and no file.
        shell = ["bash", "-c", 'exec "$@" < <(printf %s "$FED")', "bash"]
        started.append(start([*shell, *command], tmp_path / "log", {**cluster.env, "FED": fed}))
        return started[-1]

    yield run
    kill(started)
    for process in processes_of(tmp_path / "run").values():
        process.kill()


def test_a_job_trains_on_two_nodes_and_outlives_a_killed_process(submit, tmp_path):
    plan = ["--steps", "60", "--checkpoint-every", "20", "--eval-every", "0", "--resume"]
    secret = 'it\'s a "s3cret"\nin two lines \U0001f600'
    job = Job(tmp_path, tmp_path, Settings("base", Topology.parse("cpu", "2"), secrets=("TOKEN",)))
    (command,) = engines.ray(job)
    worker = submit("trains", *SMALL, *plan, fed=command.input({"TOKEN": secret}))
    wait_for_step([worker], tmp_path / "run", 2)
    first = processes_of(tmp_path / "run")["0"].pid
    assert f"TOKEN={secret}" in Path(f"/proc/{first}/environ").read_text().split("\0")
    assert "s3cret" not in worker.text()
    processes_of(tmp_path / "run")["1"].kill()
    assert finish([worker], within=RUN_S) == [0], worker.text()
    assert "process 1 ended with 137" in worker.text()
    assert "killed (137), 1 times: starting again" in worker.text()
    assert steps(tmp_path / "run") == [*range(1, 61)]
    assert devices(tmp_path / "run")["processes"] == 2


def test_a_node_that_cannot_start_its_process_fails_the_job_with_its_message(
    submit, cluster, tmp_path
):
    broken = cluster.venvs[1]
    good = broken.readlink()
    broken.unlink()
    broken.write_text("no directory")
    try:
        worker = submit("fails", *SMALL, *ENDLESS)
        (code,) = finish([worker], within=120)
    finally:
        broken.unlink()
        broken.symlink_to(good)
    assert code == 1, worker.text()  # Ray's own, for any job that failed
    # Ray chooses which process comes to that node.
    assert re.search(rf"process [01] ended with 78:\nbundle: {broken}", worker.text())
    assert "starting again" not in worker.text()
    assert "exit code 78" in worker.text() or "exited with code 78" in worker.text()
    assert ended(tmp_path / "run", within=10)


def test_a_job_that_is_stopped_saves(submit, cluster, tmp_path):
    worker = submit("stops", *SMALL, *ENDLESS)
    wait_for_step([worker], tmp_path / "run", 2)
    stop = [*cluster.cli, "job", "stop", "stops"]
    done = subprocess.run(stop, env=cluster.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    finish([worker], within=120)
    assert "starting again" not in worker.text()
    (saved,) = (tmp_path / "run/checkpoints").glob("step-*/COMMIT")
    assert int(saved.parent.name.removeprefix("step-")) == steps(tmp_path / "run")[-1]
    assert ended(tmp_path / "run", within=10)
