"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.cluster import free_port

NODES = 2
# Ray's own way to several nodes on one machine; they last until this program's input ends.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

port, *homes = sys.argv[1:]
head = {"include_dashboard": True, "dashboard_port": int(port)}
cluster = Cluster()
for home in homes:
    size = {"num_cpus": 4, "object_store_memory": 80_000_000}
    cluster.add_node(env_vars={"GRUG_VENVS": home}, **size, **head)
    head = {}
print("up", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class RayCluster:
    cli: list[str]
    env: dict[str, str]  # with the address of its jobs
    venvs: list[Path]  # GRUG_VENVS of each node: a link to that of all


@contextmanager
def ray_cluster(python: str, directory: Path, variables: dict[str, str]) -> Generator[RayCluster]:
    """Two nodes until the block ends; `python` has Ray, and is what its jobs call `python`."""
    port = free_port()
    env = {
        **os.environ,
        **variables,
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    env.pop("RAY_ADDRESS", None)
    venvs = [directory / f"venvs-{index}" for index in range(NODES)]
    for link in venvs:
        link.symlink_to(variables["GRUG_VENVS"])
    log = directory / "log"
    with (
        # Ray's sockets lie in it, and the path of one has at most 107 bytes.
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short,
        log.open("w") as out,
        subprocess.Popen(
            [python, "-c", CLUSTER, str(port), *map(str, venvs)],
            # Else Ray shows what any libtpu on this machine logs.
            env={**env, "RAY_TMPDIR": short, "TPU_LOG_DIR": short},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        ) as process,
    ):
        assert process.stdin and process.stdout
        if "up\n" not in iter(process.stdout.readline, ""):
            pytest.fail(f"Ray did not start: {log.read_text()[-3000:]}")
        address = {"RAY_ADDRESS": f"http://127.0.0.1:{port}"}
        cli = [python, "-m", "ray.scripts.scripts"]
        yield RayCluster(cli, {**env, **address}, venvs)
        process.stdin.close()
        process.wait(60)
