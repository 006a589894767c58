"""The other processes of a run: found in the environment, and joined.

docs/reference/run.md lists the variables and the time limits.
"""

import dataclasses
import os
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

import jax


class ClusterError(Exception):
    """The environment does not describe a cluster; the message says what to set."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """This process's place among the processes of a run.

    JAX fills in what is None: a TPU pod describes itself.

    Raises:
        ClusterError: the fields contradict each other.
    """

    engine: str
    processes: int | None = 1
    index: int | None = 0
    coordinator: str | None = None  # host:port; a process alone has none
    local_device_ids: tuple[int, ...] | None = None  # of this process; None: all it can see
    heartbeat: int = 60  # seconds of silence after which a process counts as lost
    init_timeout: int = 300  # seconds to wait at the start for the others
    outage: int = 1800  # seconds to wait for a store that does not answer

    def __post_init__(self):
        if self.index is not None and not 0 <= self.index < (self.processes or 0):
            raise ClusterError(f"{self.engine}: no process {self.index} among {self.processes}")
        if (self.processes or 0) > 1 and not self.coordinator:
            raise ClusterError(
                f"{self.engine}: {self.processes} processes, but no coordinator: set "
                "LAUNCH_COORDINATOR to host:port of process 0"
            )


def detect(env: Mapping[str, str], *, libtpu: bool = False) -> Cluster:
    """The cluster that `env` describes: LAUNCH_*, a TPU pod, SkyPilot, Slurm or a JobSet.

    Without any of these, one process alone. `libtpu` says whether that package is installed. JAX,
    once imported, has set TPU_SKIP_MDS_QUERY where there is no TPU.

    Raises:
        ClusterError: a variable is missing or has a bad value.
    """

    def number(name: str) -> int:
        if not env.get(name, "").isdecimal():
            raise ClusterError(f"{name}={env.get(name)}: must be set to a number")
        return int(env[name])

    bounds = ("heartbeat", "init_timeout", "outage")
    names = {field: f"LAUNCH_{field.upper()}_S" for field in bounds}
    limits: dict[str, Any] = {field: number(name) for field, name in names.items() if name in env}
    port = env.get("LAUNCH_PORT", "8476")
    if {"LAUNCH_COORDINATOR", "LAUNCH_NUM_PROCESSES", "LAUNCH_PROCESS_ID"} & env.keys():
        n, index = number("LAUNCH_NUM_PROCESSES"), number("LAUNCH_PROCESS_ID")
        ids = tuple(int(i) for i in re.findall(r"\d+", env.get("LAUNCH_LOCAL_DEVICE_IDS", "")))
        return Cluster("explicit", n, index, env.get("LAUNCH_COORDINATOR"), ids or None, **limits)
    pod = {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & env.keys()
    on_tpu = (libtpu and "tpu" in env.get("JAX_PLATFORMS", "tpu")) or "JAX_FORCE_TPU_INIT" in env
    if on_tpu and (pod or "TPU_SKIP_MDS_QUERY" not in env):
        return Cluster("tpu", None, None, **limits)
    if env.get("SKYPILOT_NODE_IPS"):
        n, index = number("SKYPILOT_NUM_NODES"), number("SKYPILOT_NODE_RANK")
        head, gpus = env["SKYPILOT_NODE_IPS"].split()[0], env.get("SKYPILOT_NUM_GPUS_PER_NODE", "0")
        ids = tuple(range(int(gpus))) or None
        return Cluster("skypilot", n, index, f"{head}:{port}", ids, **limits)
    if "SLURM_STEP_NODELIST" in env and "SLURM_PROCID" in env:  # a task of srun, not its script
        n, index = number("SLURM_NTASKS"), number("SLURM_PROCID")
        # Two steps of one job, or two jobs on one node, must not meet at one port.
        port = env.get("LAUNCH_PORT") or str(61440 + number("SLURM_JOB_ID") % 4096)
        head = first_host(env["SLURM_STEP_NODELIST"])
        return Cluster("slurm", n, index, f"{head}:{port}", slurm_devices(env), **limits)
    if env.get("JOBSET_COORDINATOR"):
        pods = number("JOBSET_PODS_PER_JOB")
        index = number("JOBSET_JOB_INDEX") * pods + number("JOB_COMPLETION_INDEX")
        head = env["JOBSET_COORDINATOR"]
        return Cluster("jobset", number("JOBSET_JOBS") * pods, index, f"{head}:{port}", **limits)
    return Cluster("alone", **limits)


def first_host(nodelist: str) -> str:
    """`n[003-4,9]-x,m1` -> `n003-x`."""
    match = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodelist)
    return "".join(part or "" for part in match.groups()) if match else nodelist


def slurm_devices(env: Mapping[str, str]) -> tuple[int, ...] | None:
    """The GPUs of this task: all it sees, or its share if a node's tasks all see the same ones."""
    visible = [d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    on_node = int(env.get("SLURM_GPUS_ON_NODE", len(visible)))
    spans = re.findall(r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    counts = [int(tasks) for tasks, times in spans for _ in range(int(times or 1))]
    tasks, local = counts[int(env.get("SLURM_NODEID", 0))], int(env.get("SLURM_LOCALID", 0))
    if tasks > 1 and len(visible) == on_node and on_node % tasks == 0:
        share = on_node // tasks
        return tuple(range(local * share, (local + 1) * share)) or None
    return tuple(range(len(visible))) or None


LOOPBACK = ("localhost", "127.0.0.1", "::1")


def bypass_proxies(env: MutableMapping[str, str], cluster: Cluster) -> None:
    """Makes gRPC and curl reach this machine and the coordinator directly, whatever proxy is set.

    A proxy leads out of a network, to which the processes of a run, and a store on this machine,
    belong.
    """
    head = (cluster.coordinator or "").rpartition(":")[0].strip("[]")
    hosts = [*LOOPBACK, *({head} - {"", *LOOPBACK})]
    listed = env.get("no_proxy", env.get("NO_PROXY", ""))
    # gRPC reads the second one instead of the first where it is set.
    for name, value in (("no_proxy", listed), ("no_grpc_proxy", env.get("no_grpc_proxy"))):
        if value is not None:
            env[name] = ",".join(dict.fromkeys([*filter(None, value.split(",")), *hosts]))


def show_devices(cluster: Cluster) -> None:
    """Gives this process, which is alone, the devices that are its own; this needs no network."""
    if cluster.local_device_ids:
        ids = ",".join(map(str, cluster.local_device_ids))
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", ids)


def join(cluster: Cluster) -> None:
    """Connects the processes of the run; ends this one if the others don't come in time."""

    def give_up() -> None:
        missing = (
            f"{cluster.processes or 'all'} processes at {cluster.coordinator or 'the TPU pod'}"
        )
        waited = f"{cluster.init_timeout} s: start those that are missing (LAUNCH_INIT_TIMEOUT_S)"
        print(
            f"process {cluster.index}: not {missing} within {waited}", file=sys.stderr, flush=True
        )
        os._exit(1)

    deadline = threading.Timer(cluster.init_timeout, give_up)
    deadline.daemon = True
    deadline.start()
    jax.config.update("jax_check_proxy_envs", False)  # it warns of what bypass_proxies has seen to
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.index,
        local_device_ids=cluster.local_device_ids,
        # JAX's own detection would show a Slurm task one GPU.
        cluster_detection_method=None if cluster.engine == "tpu" else "deactivate",
        initialization_timeout=cluster.init_timeout + 60,  # give_up says more than its abort
        heartbeat_timeout_seconds=cluster.heartbeat,
        shutdown_timeout_seconds=60,
    )
    deadline.cancel()
