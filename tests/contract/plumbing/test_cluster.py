"""What each engine's environment says about the cluster."""

import dataclasses

import pytest

from tests.contract.harness import under_test

cluster, mesh_of = under_test().cluster, under_test().processes.mesh_of
Cluster, ClusterError, detect = cluster.Cluster, cluster.ClusterError, cluster.detect
first_host, slurm_devices = cluster.first_host, cluster.slurm_devices

SKY = {
    "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}
SLURM = {
    "SLURM_JOB_ID": "4098",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_GPUS_ON_NODE": "8",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}
JOBSET = {
    "JOBSET_COORDINATOR": "run-workers-0-0.run",
    "JOBSET_JOBS": "2",
    "JOBSET_PODS_PER_JOB": "4",
    "JOBSET_JOB_INDEX": "1",
    "JOB_COMPLETION_INDEX": "2",
}
EXPLICIT = {
    "LAUNCH_COORDINATOR": "head:1234",
    "LAUNCH_NUM_PROCESSES": "4",
    "LAUNCH_PROCESS_ID": "3",
    "LAUNCH_LOCAL_DEVICE_IDS": "2,3",
}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1"}  # what importing jax sets where there is none
EIGHT = tuple(range(8))


@pytest.mark.parametrize(
    "env, expected",
    [
        ({}, Cluster("alone")),
        (SKY, Cluster("skypilot", 2, 1, "10.0.0.4:8476", EIGHT)),
        (SKY | {"LAUNCH_PORT": "99"}, Cluster("skypilot", 2, 1, "10.0.0.4:99", EIGHT)),
        (SLURM, Cluster("slurm", 2, 1, "gpu07:61442", EIGHT)),
        (JOBSET, Cluster("jobset", 8, 6, "run-workers-0-0.run:8476")),
        (EXPLICIT, Cluster("explicit", 4, 3, "head:1234", (2, 3))),
        (SLURM | SKY, Cluster("skypilot", 2, 1, "10.0.0.4:8476", EIGHT)),
        (JOBSET | SLURM | SKY | EXPLICIT, Cluster("explicit", 4, 3, "head:1234", (2, 3))),
        ({"LAUNCH_NUM_PROCESSES": "1", "LAUNCH_PROCESS_ID": "0"}, Cluster("explicit")),
        (
            {"LAUNCH_HEARTBEAT_S": "9", "LAUNCH_INIT_TIMEOUT_S": "5", "LAUNCH_OUTAGE_S": "7"},
            Cluster("alone", heartbeat=9, init_timeout=5, outage=7),
        ),
    ],
)
def test_each_engine_is_found_in_the_stated_order(env, expected):
    assert detect(env | NO_TPU) == expected


def test_a_tpu_pod_comes_before_all_but_explicit_settings():
    tpu = Cluster("tpu", None, None)
    everything = SKY | SLURM | JOBSET
    assert detect(everything | TPU | NO_TPU, libtpu=True) == tpu
    assert detect(everything, libtpu=True) == tpu  # not on Kubernetes: JAX asks Google's metadata
    assert detect(TPU | NO_TPU | {"JAX_FORCE_TPU_INIT": "1", "JAX_PLATFORMS": "cpu"}) == tpu
    assert detect(EXPLICIT | TPU, libtpu=True).engine == "explicit"


def test_a_tpu_that_the_program_does_not_use_is_none():
    assert detect(SKY, libtpu=False).engine == "skypilot"
    assert detect(SKY | TPU | {"JAX_PLATFORMS": "cpu"}, libtpu=True).engine == "skypilot"


def test_a_batch_script_is_not_a_task():
    script = {k: v for k, v in SLURM.items() if not k.startswith("SLURM_STEP")}
    assert detect(script | NO_TPU).engine == "alone"


@pytest.mark.parametrize(
    "env, message",
    [
        ({"LAUNCH_COORDINATOR": "head:1"}, "LAUNCH_NUM_PROCESSES=None: must be set to a number"),
        (EXPLICIT | {"LAUNCH_PROCESS_ID": "x"}, "LAUNCH_PROCESS_ID=x: must be set to a number"),
        (EXPLICIT | {"LAUNCH_PROCESS_ID": "4"}, "explicit: no process 4 among 4"),
        (
            {"LAUNCH_NUM_PROCESSES": "2", "LAUNCH_PROCESS_ID": "0"},
            "2 processes, but no coordinator: set LAUNCH_COORDINATOR",
        ),
        ({"LAUNCH_HEARTBEAT_S": "soon"}, "LAUNCH_HEARTBEAT_S=soon"),
        (JOBSET | {"JOBSET_JOBS": ""}, "JOBSET_JOBS=: must be set to a number"),
    ],
)
def test_what_is_no_cluster_is_named(env, message):
    with pytest.raises(ClusterError, match=message):
        detect(env | NO_TPU)


@pytest.mark.parametrize(
    "nodelist, host",
    [
        ("n1", "n1"),
        ("n1,m2", "n1"),
        ("gpu[007-015],m2", "gpu007"),
        ("gpu[3,7-9]", "gpu3"),
        ("r[1-2]-ib,m", "r1-ib"),
        ("127.0.0.[1-2]", "127.0.0.1"),
    ],
)
def test_the_first_host_of_a_nodelist(nodelist, host):
    assert first_host(nodelist) == host


@pytest.mark.parametrize(
    "changes, devices",
    [
        ({}, EIGHT),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "5"}, (5,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,2", "SLURM_LOCALID": "1"}, (4, 5, 6, 7)),
        # Slurm has given each task its own GPU (--gpus-per-task): it is number 0 there.
        (
            {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_LOCALID": "5", "CUDA_VISIBLE_DEVICES": "5"}
            | {"SLURM_NODEID": "0"},
            (0,),
        ),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
    ],
)
def test_a_slurm_task_sees_all_of_its_node_or_its_share(changes, devices):
    assert slurm_devices(SLURM | changes) == devices


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh reads of a device: no machine that runs tests has two TPU slices."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    process_index: int = 0


def test_only_replicas_cross_slices():
    chips = [Chip(i, i % 2, (i // 2 % 2, i // 4, 0)) for i in range(8)]
    mesh = mesh_of((4, 2, 1), ("replica", "data", "model"), chips)
    slices = [[chip.slice_index for chip in replica.flat] for replica in mesh.devices]
    assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match="make its replica=1 a multiple of the 2 slices"):
        mesh_of((1, 8, 1), ("replica", "data", "model"), chips)


HERE = "localhost,127.0.0.1,::1"


@pytest.mark.parametrize(
    ("env", "coordinator", "expected"),
    [
        ({}, None, {"no_proxy": HERE}),
        ({}, "gpu07:61442", {"no_proxy": f"{HERE},gpu07"}),
        ({}, "[fd00::1]:99", {"no_proxy": f"{HERE},fd00::1"}),
        ({"no_proxy": "a,::1"}, "127.0.0.1:9", {"no_proxy": "a,::1,localhost,127.0.0.1"}),
        (
            {"NO_PROXY": "a", "no_grpc_proxy": "b"},
            "h:1",
            {"NO_PROXY": "a", "no_proxy": f"a,{HERE},h", "no_grpc_proxy": f"b,{HERE},h"},
        ),
    ],
)
def test_neither_this_machine_nor_the_coordinator_is_behind_a_proxy(env, coordinator, expected):
    cluster.bypass_proxies(env, Cluster("explicit", 2, 0, coordinator or "localhost:1"))
    assert env == expected
