"""A bundle on Kubernetes, as a JobSet: https://jobset.sigs.k8s.io."""

from __future__ import annotations

from typing import Any

from tools.bundle import yaml_text
from tools.bundle.settings import PREEMPTED, Settings
from tools.bundle.topology import TPUS

SPOT = "cloud.google.com/gke-spot"  # of nodes on GKE that may be taken away
START = """\
set -e
command -v python3 >/dev/null || { echo "no python3 in this image: see --image" >&2; exit 78; }
mkdir -p /tmp/bundle
tar -xzf /config/bundle.tar.gz -C /tmp/bundle --strip-components=1
: "${RUN_DIR:?set RUN_DIR in jobset.yaml to a URL such as gs://BUCKET/runs/NAME: a pod's disk goes}"
exec python3 /tmp/bundle/run.py "$@" --run-dir "$RUN_DIR" --resume
"""


# Where what a person changes mostly is, below the root of a JobSet.
JOB = "spec.replicatedJobs.0.template.spec"
PLACES = {
    "job": JOB,
    "pod": f"{JOB}.template.spec",
    "podmeta": f"{JOB}.template.metadata",
    "container": f"{JOB}.template.spec.containers.0",
    "queue": r"metadata.labels.kueue\.x-k8s\.io/queue-name",
}


def jobset(settings: Settings) -> dict[str, Any]:
    """A JobSet: one job per slice, one pod per node. It needs no rights on the cluster's API.

    Raises:
        ToolError: a change has no place in it.
    """
    found = yaml_text.merged(settings.template, _jobset(settings))
    for path, text in settings.changes:
        first, dot, rest = path.partition(".")
        yaml_text.change(found, f"{PLACES.get(first, first)}{dot}{rest}", text)
    return found


def _jobset(settings: Settings) -> dict[str, Any]:
    topology = settings.topology
    ignore = "RestartJobSetAndIgnoreMaxRestarts"
    rules = [{"name": "preempted", "action": ignore, "onJobFailureReasons": ["PodFailurePolicy"]}]
    job = {"spec": _job(settings)}
    spec = {
        "coordinator": {"replicatedJob": "worker", "jobIndex": 0, "podIndex": 0},
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": settings.max_restarts, "rules": rules},
        "replicatedJobs": [{"name": "worker", "replicas": topology.slices, "template": job}],
    }
    metadata: dict[str, Any] = {"name": settings.name}
    if topology.accelerator == "tpu":
        key = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {key: "cloud.google.com/gke-nodepool"}
    api = "jobset.x-k8s.io/v1alpha2"
    return {"apiVersion": api, "kind": "JobSet", "metadata": metadata, "spec": spec}


def _job(settings: Settings) -> dict[str, Any]:
    """The job of one slice, which fails as a whole where one of its pods is preempted."""
    exits = {"containerName": "worker", "operator": "In", "values": [PREEMPTED]}
    preempted = [
        {"action": "FailJob", "onExitCodes": exits},
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    pods = settings.topology.nodes // settings.topology.slices
    return {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": preempted},
        "template": {"spec": _pod(settings, pods)},
    }


def _pod(settings: Settings, pods: int) -> dict[str, Any]:
    """A node of a slice that has `pods` of them."""
    topology = settings.topology
    # Where the program sees a TPU pod, it takes these from the TPU's own environment.
    cluster = [] if topology.accelerator == "tpu" else _downward(topology.slices, pods)
    container = {
        "name": "worker",
        "image": settings.image or f"python:{settings.pythons.minimum}-slim",
        "command": ["/bin/sh", "-c", START, "run.py", *map(literal, settings.args)],
        "env": [*_variables(settings), *cluster],
        "resources": _resources(settings),
        "volumeMounts": [
            {"name": "bundle", "mountPath": "/config"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            {"name": "bundle", "configMap": {"name": settings.name}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    nodes = {}
    if topology.accelerator == "tpu":
        nodes["cloud.google.com/gke-tpu-accelerator"] = TPUS[topology.kind].gke
        nodes["cloud.google.com/gke-tpu-topology"] = topology.shape
    if settings.spot:
        nodes[SPOT] = "true"
        pod["tolerations"] = [
            {"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        ]
    return pod | ({"nodeSelector": nodes} if nodes else {})


def _variables(settings: Settings) -> list[dict[str, Any]]:
    values = {**settings.env, "RUN_DIR": settings.run_dir}
    plain = [{"name": name, "value": literal(value)} for name, value in values.items()]
    return plain + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.name, "key": name}}}
        for name in settings.secrets
    ]


def literal(text: str) -> str:
    """The text, so that Kubernetes expands no $(VARIABLE) in it."""
    return text.replace("$", "$$")


def _downward(jobs: int, pods: int) -> list[dict[str, Any]]:
    """What a variant's cluster.py reads; Kubernetes itself sets JOB_COMPLETION_INDEX."""

    def annotation(name: str) -> dict[str, Any]:
        return {"fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}}

    return [
        {"name": "JOBSET_COORDINATOR", "valueFrom": annotation("jobset.sigs.k8s.io/coordinator")},
        {"name": "JOBSET_JOB_INDEX", "valueFrom": annotation("jobset.sigs.k8s.io/job-index")},
        {"name": "JOBSET_JOBS", "value": str(jobs)},
        {"name": "JOBSET_PODS_PER_JOB", "value": str(pods)},
    ]


def _resources(settings: Settings) -> dict[str, Any]:
    topology = settings.topology
    if topology.accelerator == "cpu":
        return {"requests": {"cpu": str(settings.cpus)}}
    name = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[topology.accelerator]
    return {"limits": {name: str(topology.devices_per_node)}}
