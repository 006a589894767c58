"""The TPU bundle on two emulated slices: what a pod's environment tells is found and joined."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engines.cluster import Worker, finish, free_port, kill, rows
from tests.slow.engines.bundles import PYTHON, RUN_S, SMALL, devices, packed, start

STEPS = ["--steps", "6", "--eval-every", "3"]
# What a host of a pod has in its environment, less the devices: each slice is one host.
POD = {
    "JAX_FORCE_TPU_INIT": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
}


@pytest.fixture
def host(settings: dict[str, str], tmp_path: Path):
    """`host(name, run_dir, **variables)`: a process of the bundle, stopped with the test."""
    bundle = packed("base-tpu")
    started: list[Worker] = []

    def run(name: str, run_dir: str, **variables: str) -> Worker:
        flags = [*SMALL, *STEPS, "--run-dir", str(tmp_path / run_dir)]
        env = {**os.environ, **settings, "JAX_PLATFORMS": "cpu", **variables}
        started.append(start([PYTHON, str(bundle / "run.py"), *flags], tmp_path / name, env))
        return started[-1]

    yield run
    kill(started)


def learned(run_dir: Path) -> list[dict[str, float]]:
    """Lines of metrics less what a clock put there."""
    lines = rows(run_dir)
    return [{k: v for k, v in row.items() if not k.startswith("throughput/")} for row in lines]


def test_two_slices_learn_what_one_process_does(host, tmp_path):
    alone = host("alone.log", "alone", JAX_NUM_CPU_DEVICES="2")
    assert finish([alone], within=RUN_S) == [0], alone.text()
    port = {"JAX_COORDINATOR_PORT": str(free_port()), "JAX_NUM_CPU_DEVICES": "1"}
    slices = [host(f"{i}.log", "pod", **POD, **port, MEGASCALE_SLICE_ID=str(i)) for i in range(2)]
    codes = finish(slices, within=RUN_S)
    assert codes == [0, 0], "\n".join(worker.text() for worker in slices)
    # Nothing but the pod's own variables says that there are two.
    assert devices(tmp_path / "alone") | {"processes": 2} == devices(tmp_path / "pod")
    one, two = learned(tmp_path / "alone"), learned(tmp_path / "pod")
    assert [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert "bits per byte" in slices[0].text() and "bits per byte" not in slices[1].text()


def test_a_slice_that_never_comes_is_not_waited_for(host, tmp_path):
    pod = {**POD, "JAX_COORDINATOR_PORT": str(free_port()), "LAUNCH_INIT_TIMEOUT_S": "4"}
    worker = host("0.log", "pod", **pod, MEGASCALE_SLICE_ID="0")
    assert finish([worker], within=RUN_S) == [1]
    assert "not all processes at the TPU pod within 4 s" in worker.text()
